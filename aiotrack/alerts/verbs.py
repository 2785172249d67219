"""What users call: ``tracker.alerts``."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from aiotrack.alerts.rules import look
from aiotrack.clock import to_datetime

if TYPE_CHECKING:
    import builtins

    from aiotrack.repository.control.audit import Deed
    from aiotrack.tracker import Tracker

log = logging.getLogger(__name__)

BEGIN: Final = "alert.begin"
END: Final = "alert.end"
OLDEST: Final = timedelta(days=30)
"""An alert that began earlier begins anew."""

PATIENCE: Final = 10.0
"""Seconds for what is told of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """Something that somebody ought to see to.

    ``rule`` is ``failure-rate``, ``slow-task``, ``silent-schedule``, ``backlog``, ``lost-worker``,
    ``worker-memory`` or ``worker-cpu``, ``subject`` what it is about, such as a task's name.
    ``ended_at`` is None while it goes on; times are aware and UTC.
    """

    rule: str
    subject: str
    text: str
    began_at: datetime
    ended_at: datetime | None = None


Receiver = Callable[[Alert], Any]


class Watch:
    """Alerts: each is told once when it begins and once when it is over.

    A schedule looks every minute (the setting ``alerts_crontab``), once across a fleet. What is
    told goes to the log, and to what `on` names in the process that looks: name it where the
    broker is made, so that every worker does. Begin and end stand in the audit.
    """

    def __init__(self, tracker: Tracker, receivers: builtins.list[Receiver]) -> None:
        self._tracker = tracker
        self._receivers = receivers

    def on(self, receiver: Receiver) -> Receiver:
        """Tell *receiver*, too; it may be async. May be used as a decorator.

        Args:
            receiver: Takes an `Alert`; with ``ended_at`` it is over. What it raises is logged, and
                after ten seconds it is not waited for any more.
        """
        self._receivers.append(receiver)
        return receiver

    async def list(self) -> builtins.list[Alert]:
        """Give the alerts that go on, the newest first.

        Raises:
            StoreUnavailable: The database did not answer.
        """
        found = [_alert(target, deed) for target, deed in (await self._open()).items()]
        return sorted(found, key=lambda one: one.began_at, reverse=True)

    async def check(self) -> builtins.list[Alert]:
        """Look now, and tell what began and what is over; gives the alerts that go on.

        Raises:
            StoreUnavailable: The database did not answer.
        """
        began, ended = await self._changes()
        audit = self._tracker.audit
        for target, text in began.items():
            await audit.append(BEGIN, target, by="aiotrack", reason=text)
        for target in ended:
            await audit.append(END, target, by="aiotrack")
        for alert in await self.list():
            if _target(alert) in began:
                log.warning("alert %s of %s: %s", alert.rule, alert.subject, alert.text)
                await self._tell(alert)
        now = to_datetime(self._tracker.clock.now())
        for target, deed in ended.items():
            alert = _alert(target, deed, ended_at=now)
            log.warning("alert %s of %s is over", alert.rule, alert.subject)
            await self._tell(alert)
        return await self.list()

    async def has_news(self) -> bool:
        """Tell whether `check` would tell anything."""
        return any(await self._changes())

    async def _changes(self) -> tuple[dict[str, str], dict[str, Deed]]:
        """Give what began, with its text, and what is over."""
        known = await self._open()
        seen, blind = await look(self._tracker, known)
        began = {target: text for target, text in seen.items() if text and target not in known}

        def is_over(target: str) -> bool:
            is_seen = target in seen or not {target, target.partition(":")[0]} & blind
            return is_seen and not seen.get(target)

        return began, {target: deed for target, deed in known.items() if is_over(target)}

    async def _open(self) -> dict[str, Deed]:
        """Give the alerts that began and are not over, by their target in the audit."""
        from aiotrack.repository.control.audit import Audit

        audit = Audit(self._tracker.core().repository)
        last = await audit.last_since((BEGIN, END), OLDEST)
        return {target: deed for target, deed in last.items() if deed.action == BEGIN}

    async def _tell(self, alert: Alert) -> None:
        for receiver in self._receivers:
            try:
                async with asyncio.timeout(PATIENCE):
                    answer = receiver(alert)
                    if inspect.isawaitable(answer):
                        await answer
            except Exception as error:
                log.error("%r was not told of an alert: %r", receiver, error)


def _target(alert: Alert) -> str:
    return f"{alert.rule}:{alert.subject}"


def _alert(target: str, deed: Deed, ended_at: Any = None) -> Alert:
    rule, _, subject = target.partition(":")
    began = to_datetime(deed.at)
    assert began is not None
    return Alert(
        rule=rule, subject=subject, text=deed.reason or "", began_at=began, ended_at=ended_at
    )
