"""``tracker.settings``: what holds now, for whom, and which layer says so.

A row of a user > a row for all > the keyword or environment of this process > the default.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, cast

from aiotrack.clock import to_datetime
from aiotrack.errors import InvalidSetting
from aiotrack.settings import (
    DEFAULT_DATABASE,
    GLOBAL,
    NOBODY,
    ROW_KEYS,
    USER,
    check_number,
    known,
    masked,
)

if TYPE_CHECKING:
    from aiotrack.lifecycle import Lifecycle
    from aiotrack.repository.control.setting_rows import Stored

MAX_USER: Final = 255
"""Characters of a user's name, as long as the longest task_id: a guess."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why a setting is what it is.

    Attributes:
        key: The setting.
        value: What holds.
        layer: Who won: ``user``, ``global``, ``settings`` or ``default``.
        source: Of ``settings``: ``keyword`` or ``environment``; else None.
        layers: What each layer says, from the strongest to the weakest; None where it says nothing.
    """

    key: str
    value: Any
    layer: str
    source: str | None
    layers: Mapping[str, Any]

    def __str__(self) -> str:
        told = f" ({self.source})" if self.source else ""
        return f"{self.key} = {self.value}, by {self.layer}{told}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingEntry:
    """A setting that was made while the product runs; ``user`` is None where it holds for all."""

    key: str
    value: float
    scope: str
    user: str | None
    set_at: datetime


def deed_of(user: str | None, before: Explanation, after: Explanation) -> dict[str, Any]:
    """Give ``target``, ``before`` and ``after`` of the audit's row for a change."""
    layer = GLOBAL if user is None else USER
    return {
        "target": f"setting:{after.key}",
        "before": {"user": user, "value": before.layers[layer]},
        "after": {"user": user, "value": after.layers[layer]},
    }


class RowSettings:
    """Settings in rows of the database, over those of this process.

    Rows may set ``retention_days`` and ``timeout_minutes``: those of a user hold for what that user
    created. All verbs raise `StoreUnavailable` when the database does not answer.
    """

    def __init__(self, tracker: Lifecycle) -> None:
        self._tracker = tracker

    async def set(
        self, key: str, value: float, scope: str | None = None, user: str | int | None = None
    ) -> None:
        """Make a setting, for all processes and from now on.

        Args:
            key: ``retention_days`` or ``timeout_minutes``.
            value: Days or minutes; 0 is at once, -1 never.
            scope: ``global`` or ``user``; default: ``user`` when *user* is given.
            user: As in ``created_by``.

        Raises:
            InvalidSetting: Unknown key or scope, or a value out of range; nothing is stored.
        """
        from aiotrack.repository.control.setting_rows import Stored

        where, owner = self._place(key, scope, user)
        check_number(key, value)
        repository = self._tracker.core().repository
        await repository.connect()  # it knows what time it is
        now = self._tracker.clock.now()
        await repository.settings.put(
            Stored(scope=where, owner=owner, key=key, value=value, set_at=now)
        )

    async def unset(
        self, key: str, scope: str | None = None, user: str | int | None = None
    ) -> bool:
        """Take a setting back; False when there was none.

        Raises:
            InvalidSetting: Unknown key or scope.
        """
        where, owner = self._place(key, scope, user)
        return await self._tracker.core().repository.settings.remove(where, owner, key)

    async def get(
        self, key: str, user: str | int | None = None, *, scope: str | None = None
    ) -> Any:
        """Give what holds now: for *user*, or for whoever has no settings of their own.

        Args:
            key: Any setting.
            user: For whom.
            scope: As in `set`, and needed no more than there: *user* says it.

        Raises:
            InvalidSetting: Unknown key or scope.
        """
        self._check_scope(key, scope, user)
        return (await self.explain(key, user)).value

    async def all(
        self, user: str | int | None = None, *, scope: str | None = None
    ) -> dict[str, Any]:
        """Give what `get` gives, of every key that rows may set."""
        self._check_scope("scope", scope, user)
        rows = await self._read(user)
        return {key: self._explained(key, rows).value for key in ROW_KEYS}

    async def rows(self) -> list[SettingEntry]:
        """Give what `set` made and nobody took back, for all and for every user."""
        return [
            SettingEntry(
                key=row.key,
                value=_plain(row.value),
                scope=row.scope,
                user=row.owner if row.scope == USER else None,
                set_at=cast("datetime", to_datetime(row.set_at)),
            )
            for row in await self._tracker.core().repository.settings.read(is_all=True)
        ]

    async def explain(self, key: str, user: str | int | None = None) -> Explanation:
        """Tell what holds, which layer won, and what each layer says.

        Args:
            key: Any setting; passwords in URLs, and secrets, are left out.
            user: For whom.

        Raises:
            InvalidSetting: Unknown key.
        """
        known(key)
        rows = await self._read(user) if key in ROW_KEYS else []
        return self._explained(key, rows)

    async def _read(self, user: str | int | None) -> list[Stored]:
        owner = None if user is None else self._owner(user)
        return await self._tracker.core().repository.settings.read(owner)

    def _explained(self, key: str, rows: Iterable[Stored]) -> Explanation:
        options = self._tracker.options
        source: str | None = options.source_of(key)
        value = getattr(options, key)
        address = self._address(key)
        if address is not None and address != value:
            source, value = "keyword", address
        stored: dict[str, Any] = {row.scope: _plain(row.value) for row in rows if row.key == key}
        given = None if source == "default" else _shown(key, value)
        layers = {
            USER: stored.get(USER),
            GLOBAL: stored.get(GLOBAL),
            "settings": given,
            "default": known(key).default,
        }
        said = set(stored)
        if source != "default":
            said.add("settings")
        layer = next((name for name in layers if name in said), "default")
        return Explanation(
            key=key,
            value=layers[layer],
            layer=layer,
            source=source if layer == "settings" else None,
            layers=layers,
        )

    def _address(self, key: str) -> str | None:
        """Give the address that the tracker was made with; None where settings tell all."""
        tracker = self._tracker
        if key == "redis_url" and tracker.redis is not None:
            return tracker.redis if isinstance(tracker.redis, str) else "a client"
        if key == "database_url" and tracker.database != DEFAULT_DATABASE:
            url = tracker.database
            return url if isinstance(url, str) else url.url.render_as_string()
        return None

    def _place(self, key: str, scope: str | None, user: str | int | None) -> tuple[str, str]:
        known(key)
        if key not in ROW_KEYS:
            fault = f"is set at the start only; rows may set {' and '.join(ROW_KEYS)}"
            raise InvalidSetting(key, fault)
        where = self._check_scope(key, scope, user)
        return where, NOBODY if user is None else self._owner(user)

    def _check_scope(self, key: str, scope: str | None, user: str | int | None) -> str:
        where = scope or (GLOBAL if user is None else USER)
        if where not in {GLOBAL, USER}:
            raise InvalidSetting(key, f"{scope!r} is no scope: use 'global' or 'user'")
        if where == GLOBAL and user is not None:
            raise InvalidSetting(key, "the scope 'global' is for all: leave user= out")
        if where == USER and user is None:
            raise InvalidSetting(key, "the scope 'user' needs user=")
        return where

    def _owner(self, user: str | int) -> str:
        """Give a user's name as it stands in ``created_by``."""
        if isinstance(user, bool) or not isinstance(user, (str, int)):
            raise InvalidSetting("user", f"{user!r} is no text or number")
        name = self._tracker.encoder.name(str(user))
        if not name or len(name) > MAX_USER:
            raise InvalidSetting("user", f"must have 1 to {MAX_USER} characters")
        return name


def _plain(value: float) -> float:
    """Give a whole number as one."""
    return int(value) if value == int(value) else value


def _shown(key: str, value: Any) -> Any:
    if key == "api_tokens":
        return [f"{head}{colon}..." for head, colon, _ in (one.rpartition(":") for one in value)]
    return masked(value) if key.endswith("_url") and isinstance(value, str) else value
