"""``aiotrack tasks`` and ``aiotrack queues``: what may be sent, and what waits to be taken."""

from __future__ import annotations

import asyncio
from dataclasses import asdict

import typer

from aiotrack import Queue
from aiotrack.cli import pages
from aiotrack.cli.codes import BrokerUnavailable
from aiotrack.cli.connect import Broker, Modules, broker_of, started
from aiotrack.cli.output import Json, console, print_json
from aiotrack.health import Checks


def tasks(broker: Broker, modules: Modules = None, as_json: Json = False) -> None:
    """See the tasks that a broker knows, and what they take."""
    _, tracker = broker_of(broker, modules or [])
    found = tracker.tasks()
    if as_json:
        print_json({"items": [asdict(one) for one in found]})
    else:
        pages.print_tasks(console(), found)


def queues(broker: Broker, modules: Modules = None, as_json: Json = False) -> None:
    """See what waits in a broker's queues, and who listens.

    How many messages, and for how long.
    """
    found = asyncio.run(_queues(broker, modules or []))
    if as_json:
        print_json({"items": [asdict(one) for one in found]})
    else:
        pages.print_queues(console(), found)


async def _queues(spec: str, modules: list[str]) -> list[Queue]:
    async with started(spec, modules) as tracker:
        asked = await tracker.core().feature(Checks).broker()
        if not asked.ok:  # else it would look like one that does not tell
            raise BrokerUnavailable(f"a broker of {spec} does not answer: {asked.error}")
        return await tracker.queues()


def add_to(app: typer.Typer) -> None:
    """Add the verbs to the program."""
    app.command()(tasks)
    app.command()(queues)
