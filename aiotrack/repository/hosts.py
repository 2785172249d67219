"""Several hosts of one database: after a fail-over the one that takes writes is found again."""

from __future__ import annotations

import logging
import re
from typing import Any

import asyncpg
from sqlalchemy.engine import URL

from aiotrack.errors import InvalidSetting

log = logging.getLogger(__name__)

DEFAULT_PORT = 5432

ALL_HOSTS_TIMEOUT = 4.0
"""Seconds to try each host once: below the limit of a write's connect."""

HOST_TIMEOUT = 2.0
"""Seconds to try one host; fewer where there are more than two."""

_SEVERAL = re.compile(
    r"(?P<scheme>[\w+]+://)(?P<account>[^@]*@)?(?P<hosts>[^/?@]*,[^/?@]*)"
    r"(?P<path>/[^?]*)?(?:\?(?P<query>.*))?"
)
"""libpq's way to name several hosts: ``scheme://account@host:port,host:port/path?query``."""

_ATTRIBUTE = "target_session_attrs"


def spread_hosts(text: str) -> str:
    """Turn libpq's way to name several hosts into SQLAlchemy's; another URL stays as it is."""
    match = _SEVERAL.fullmatch(text)
    if match is None:
        return text
    pairs = [_pair(one) for one in match["hosts"].split(",")]
    words = {
        "host": ",".join(host for host, _ in pairs),
        "port": ",".join(port for _, port in pairs),
    }
    query = "&".join([f"{name}={word}" for name, word in words.items()] + [match["query"] or ""])
    return f"{match['scheme']}{match['account'] or ''}{match['path'] or ''}?{query.rstrip('&')}"


def _pair(one: str) -> tuple[str, str]:
    """Part a host from its port; an IPv6 address stands in brackets."""
    host, colon, port = one.rpartition(":")
    if not colon or one.endswith("]"):
        host, port = one, ""
    return host.strip("[]"), port or str(DEFAULT_PORT)


def hosts_of(url: URL) -> list[tuple[str, int]]:
    """Give host and port of each server that a URL for asyncpg names."""
    _, options = url.get_dialect()().create_connect_args(url)
    hosts, ports = options.get("host"), options.get("port")
    if isinstance(hosts, list) and isinstance(ports, list):
        return list(zip(hosts, ports, strict=True))
    return [(str(hosts or "localhost"), int(ports or DEFAULT_PORT))]


class Hosts:
    """Connects to the one of several hosts that takes writes, first to the one that did last.

    asyncpg's own search has one limit of time for all hosts: one that is silent takes it whole,
    and the next is never tried.

    Args:
        url: Where the hosts stand.

    Raises:
        InvalidSetting: A server is asked for that may take no writes.
    """

    def __init__(self, url: URL) -> None:
        self._hosts = hosts_of(url)
        asked = url.query.get(_ATTRIBUTE, "read-write")
        if asked not in {"read-write", "primary"}:
            fault = f"{_ATTRIBUTE}={asked}: records are written: leave it out, or say read-write"
            raise InvalidSetting("database", fault)

    async def connect(self, **options: Any) -> Any:
        """Connect; *options* are those of ``asyncpg.connect``.

        Raises:
            ConnectionError: No host takes writes; the message tells what each said.
        """
        limit = min(HOST_TIMEOUT, ALL_HOSTS_TIMEOUT / len(self._hosts))
        options |= {_ATTRIBUTE: "read-write", "timeout": limit}
        said: list[str] = []
        cause: Exception | None = None
        for host, port in self._hosts:
            try:
                found = await asyncpg.connect(**{**options, "host": host, "port": port})
            except _REFUSALS as error:
                said.append(f"{host}:{port}: {error or type(error).__name__}")
                cause = error
                continue
            self._prefer((host, port), said)
            return found
        raise ConnectionError(f"no host takes writes: {'; '.join(said)}") from cause

    def _prefer(self, chosen: tuple[str, int], said: list[str]) -> None:
        if self._hosts[0] != chosen:
            log.warning("the database is at %s:%d now (%s)", *chosen, "; ".join(said))
            self._hosts = [chosen, *(one for one in self._hosts if one != chosen)]


_REFUSALS = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
"""What a host may answer to make us try the next; the last is that of a standby."""
