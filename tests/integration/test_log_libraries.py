"""Libraries that log in their own ways: structlog through `logging`, loguru propagated to it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from aiotrack import Tracker


@pytest.fixture(autouse=True)
def _levels() -> Iterator[None]:
    """As under ``taskiq worker``: INFO is logged."""
    logging.getLogger("shop").setLevel(logging.INFO)
    logging.getLogger("tests").setLevel(logging.INFO)
    yield
    logging.getLogger("shop").setLevel(logging.NOTSET)
    logging.getLogger("tests").setLevel(logging.NOTSET)


async def lines(tracker: Tracker) -> list[tuple[str, str]]:
    """Give levels and messages of the execution x."""
    return [(line.level, line.message) for line in (await tracker.logs("x")).items]


STRUCTLOG = ["rendered", "for a formatter", "as keywords"]


@pytest.mark.parametrize("way", STRUCTLOG)
async def test_structlog_through_logging(tracker: Tracker, way: str) -> None:
    """Events and their values are in the line, secrets are not, whichever renderer is last."""
    import structlog

    last: Any = {
        "rendered": structlog.processors.KeyValueRenderer(key_order=["event"]),
        "for a formatter": structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        "as keywords": structlog.stdlib.render_to_log_kwargs,
    }[way]
    structlog.configure(
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        processors=[structlog.stdlib.add_log_level, last],
        cache_logger_on_first_use=False,
    )
    try:
        log = structlog.get_logger("shop")
        async with tracker.track("shop.x", task_id="x"):
            log.bind(order=7).info("paid", password="hunter2")
            try:
                raise ValueError("boom")
            except ValueError:
                log.exception("failed")
    finally:
        structlog.reset_defaults()
    (level, paid), (worse, failed) = await lines(tracker)

    assert ("INFO", "ERROR") == (level, worse)
    assert "paid" in paid
    assert "hunter2" not in paid
    if way != "as keywords":  # `logging` keeps those beside the message
        assert "order=7" in paid
    assert "failed" in failed
    if way != "rendered":
        assert failed.endswith("ValueError: boom")


async def test_loguru_propagated_to_logging(tracker: Tracker) -> None:
    """A sink of three lines, as the how-to shows it."""
    from loguru import logger

    class Propagate(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            logging.getLogger(record.name).handle(record)

    sink = logger.add(Propagate(), format="{message}", level="INFO")
    try:
        async with tracker.track("shop.x", task_id="x"):
            logger.bind(order=7).info("paid {}, token={}", 3, "hunter2hunter2")
            try:
                raise ValueError("boom")
            except ValueError:
                logger.exception("failed")
    finally:
        logger.remove(sink)
    (level, paid), (worse, failed) = await lines(tracker)

    assert ("INFO", "paid 3, token=[redacted]") == (level, paid)
    assert "ERROR" == worse
    assert failed.startswith("failed")
    assert failed.endswith("ValueError: boom")
