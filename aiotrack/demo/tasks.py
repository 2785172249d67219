"""A small shop's background work: what your own tasks module looks like with aiotrack.

The three lines that track it are marked. Its worker: ``taskiq worker aiotrack.demo.tasks:broker``.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Iterator
from uuid import uuid4

from taskiq import Context, SimpleRetryMiddleware, TaskiqDepends, TaskiqScheduler
from taskiq.schedule_sources import LabelScheduleSource
from taskiq.serializers import JSONSerializer
from taskiq_redis import RedisAsyncResultBackend

from aiotrack import (
    DefinitionScheduleSource,
    Tracker,
    TrackerMiddleware,
    current_execution,
    prevent_duplicate_task,
    task_lock,
)
from aiotrack.brokers import PriorityStreamBroker

log = logging.getLogger("shop")

REDIS_URL = os.environ.get("AIOTRACK_REDIS_URL", "redis://127.0.0.1:6379/0")
RUN = os.environ.get("AIOTRACK_DEMO_RUN", "demo")
"""Name of the queue, and how every task_id begins: one run of the demo is found by it."""

# 1: where to record: AIOTRACK_DATABASE_URL, or a URL given here
tracker = Tracker(redis=REDIS_URL)

broker = (
    PriorityStreamBroker(REDIS_URL, queue_name=RUN)
    .with_id_generator(lambda: f"{RUN}-{uuid4().hex[:8]}")
    .with_result_backend(
        RedisAsyncResultBackend(REDIS_URL, serializer=JSONSerializer(), result_ex_time=600)
    )
    .with_middlewares(
        TrackerMiddleware(tracker),  # 2: every task below is recorded from here on
        SimpleRetryMiddleware(),
    )
)


scheduler = TaskiqScheduler(
    broker,
    [
        LabelScheduleSource(broker),  # sends the tracker's sweeps, too
        DefinitionScheduleSource(tracker),  # what is defined, started and paused while it runs
    ],
)


class CardDeclined(Exception):
    """The bank said no."""


@broker.task("shop.greet")
async def greet(name: str) -> dict[str, str]:
    """Succeed at once."""
    return {"greeting": f"Hello, {name}!"}


@broker.task("billing.charge")
async def charge(order: int, amount: float) -> None:
    """Fail."""
    await asyncio.sleep(0.3)
    raise CardDeclined(f"order {order}: {amount:.2f} € were declined by the bank")


@broker.task("rates.fetch", retry_on_error=True, max_retries=3)
async def fetch_rates(currency: str) -> float:
    """Fail twice, and succeed at the third attempt."""
    await asyncio.sleep(0.6)
    run = current_execution()
    if run is not None and run.attempt < 3:
        raise ConnectionError(f"no answer from the bank for {currency} (attempt {run.attempt})")
    return 1.0842


@broker.task("partners.notify", retry_on_error=True, max_retries=3)
async def notify_partner(partner: str) -> None:
    """Fail at each of three attempts, with an error of its own each time."""
    await asyncio.sleep(0.5)
    run = current_execution()
    number = 1 if run is None else run.attempt
    raise RuntimeError(f"{partner} answered {['502', '503', '504'][(number - 1) % 3]}")


@broker.task("imports.load")
async def load_rows(file: str, rows: int) -> int:
    """Tell how far it is, and log what it finds: both are seen from other processes, live."""
    for done in range(1, rows + 1):
        await asyncio.sleep(0.02)
        if done % 30 == 0:
            log.info("row %d of %s has no e-mail address", done, file)
        await tracker.progress(current=done, total=rows, message=f"row {done} of {file}")  # 3
    return rows


@broker.task("reports.monthly")
async def monthly_report(month: str) -> str:
    """Take its time, step by step."""
    for step, percent in (("collect", 10), ("compute", 40), ("draw", 80)):
        await tracker.progress(percent, step=step)
        await asyncio.sleep(1.2)
    await tracker.progress(100)
    return f"{month}.pdf"


@broker.task("media.resize")
def resize(picture: str, width: int) -> str:
    """Block: sync functions run in a thread of the worker, and can tell their progress too."""
    for tile in range(8):
        time.sleep(0.2)
        tracker.progress_sync(current=tile + 1, total=8)
    return f"{picture}@{width}"


@broker.task("shop.stream")
async def stream_prices() -> Iterator[int]:
    """Return what cannot be stored; its record says what it was."""
    return (price for price in (1, 2, 3))


@broker.task("exports.catalogue")
async def export_catalogue() -> str:
    """Return a megabyte; the record keeps the beginning and the size."""
    return "article;price\n" * 75_000


@broker.task("orders.invoice")
async def send_invoice(order: int) -> str:
    """Be sent inside ``tracking(...)``: the record knows who asked for it, and for what."""
    await asyncio.sleep(0.2)
    return f"invoice-{order}.pdf"


@broker.task("orders.receipt")
async def send_receipt(order: int) -> str:
    """Be sent by another task; the record links to it."""
    await asyncio.sleep(0.4)
    return f"receipt-{order}.pdf"


@broker.task("orders.place")
async def place_order(order: int) -> int:
    """Send another task."""
    await asyncio.sleep(0.3)
    await send_receipt.kiq(order)
    return order


@broker.task("imports.wait")
async def wait_for_file(file: str, context: Context = TaskiqDepends()) -> str:
    """Go back to the queue once, as long as the file is not there."""
    await asyncio.sleep(0.3)
    if "X-Taskiq-requeue" not in context.message.labels:
        await context.requeue()
    return file


@broker.task("shop.reprice", timeout=1)
async def reprice(articles: int) -> None:
    """Take longer than its time limit of one second."""
    await asyncio.sleep(articles)


@broker.task("search.crawl")
async def crawl(site: str) -> None:
    """Run until somebody cancels it; what it cleans up runs all the same."""
    try:
        await asyncio.sleep(60)
    finally:
        log.info("the crawler has left %s", site)


@broker.task("search.index")
async def index(site: str) -> None:
    """Be unlucky: its worker is killed, as when a host runs out of memory."""
    log.info("indexing %s", site)
    await asyncio.sleep(0.5)
    os.kill(os.getpid(), signal.SIGKILL)


@broker.task("mail.send")
async def send_mail(to: str) -> str:
    """Wait its turn, or not: what is urgent is taken first, whenever it was sent."""
    await asyncio.sleep(0.1)
    return f"mail to {to}"


@broker.task("carts.tidy")
async def tidy_carts() -> int:
    """Be sent by a schedule."""
    return 3


@broker.task("stock.count")
@prevent_duplicate_task("count-stock", lock_param="shop")
async def count_stock(shop: str) -> int:
    """Not run while the same shop is being counted: a second send is skipped, and says by whom."""
    await asyncio.sleep(1.0)
    return len(shop)


@broker.task("stock.move")
async def move_stock(shelf: int) -> int:
    """Wait for a lock: one moves at a time, and the next is woken when it is free."""
    begun = time.monotonic()
    async with task_lock("move-stock", wait=10):
        waited = time.monotonic() - begun
        await tracker.progress(waited_ms=round(waited * 1000))
        await asyncio.sleep(0.8)
    return shelf


@broker.task("accounts.sign_in")
async def sign_in(user: str, password: str, api_token: str = "") -> dict[str, str]:
    """Get secrets; neither the arguments nor the result show them in the record."""
    return {"user": user, "session_token": f"{len(password)}-{len(api_token)}"}
