"""``aiotrack serve``: the API of a project, or of a database alone, as a process of its own."""

from __future__ import annotations

import ipaddress
import logging
import signal
import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from aiotrack import Tracker
from aiotrack.cli.connect import Database, Modules, broker_of, url_of
from aiotrack.errors import InvalidSetting, InvalidValue, MissingExtra

if TYPE_CHECKING:
    from fastapi import FastAPI
    from taskiq import AsyncBroker

log = logging.getLogger(__name__)

PATIENCE: Final = 2
"""Seconds that a stop leaves to requests in flight."""

UNREAD: Final = 10_000
"""Milliseconds after which the system drops a peer that takes nothing of what it was sent."""

BACKLOG: Final = 2048

Project = Annotated[
    str | None,
    typer.Argument(
        metavar="MODULE:BROKER",
        help="The broker, as for taskiq worker: what is sent by the API needs it.",
    ),
]
Tokens = Annotated[
    list[str] | None,
    typer.Option(
        "--token",
        metavar="TOKEN",
        help="SECRET, SCOPE:SECRET or NAME:SCOPE:SECRET; may be repeated. Others on this machine "
        "see it: AIOTRACK_API_TOKENS is the better place.",
    ),
]


def serve(
    broker: Project = None,
    database: Database = None,
    host: Annotated[
        str, typer.Option(metavar="HOST", help="Anything but loopback needs a token.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="PORT", min=0, max=65_535, help="0: any that is free.")
    ] = 8000,
    token: Tokens = None,
    modules: Modules = None,
) -> None:
    """Serve the REST API and the dashboard.

    Until it is stopped by Ctrl-C or SIGTERM, which are no failure: exit code 0.
    """
    project, tracker = _project(broker, database, modules or [])
    secrets = [*(token or []), *tracker.options.api_tokens]
    addresses = _addresses(host, port)
    _check_exposure(host, addresses, is_closed=bool(secrets))
    app = _app(tracker, project, secrets)
    sockets = _listen(host, addresses)
    try:
        _run(app, tracker, sockets, names=None if secrets else {host})
    finally:
        for one in sockets:
            one.close()


def _project(
    spec: str | None, database: str | None, modules: list[str]
) -> tuple[AsyncBroker | None, Tracker]:
    if spec is None:
        if modules:
            raise InvalidValue("--import is for the tasks of a broker: name it, MODULE:BROKER")
        return None, Tracker(url_of(database))
    if database is not None:
        raise InvalidValue(f"--database: {spec} has a tracker, and that has a database")
    return broker_of(spec, modules)


def _app(tracker: Tracker, broker: AsyncBroker | None, secrets: Iterable[str]) -> FastAPI:
    from aiotrack.api import create_app  # says what is not installed
    from aiotrack.dashboard import mount_dashboard

    app = create_app(tracker, broker=broker, tokens=secrets)
    mount_dashboard(app)
    return app


Address = tuple[socket.AddressFamily, tuple[Any, ...]]


def _addresses(host: str, port: int) -> list[Address]:
    """Find what a host means, now: what is checked is what is listened on.

    Raises:
        InvalidValue: Nobody knows it.
    """
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as error:
        raise InvalidValue(f"--host: {host!r} is no address of this machine: {error}") from error
    return list(dict.fromkeys((family, tuple(address)) for family, _, _, _, address in found))


def _check_exposure(host: str, addresses: Iterable[Address], *, is_closed: bool) -> None:
    """Refuse to open everything to everybody.

    Raises:
        InvalidSetting: Others reach it, and no token closes it.
    """
    if is_closed or all(_is_loopback(address) for address in addresses):
        return
    raise InvalidSetting(
        "api_tokens",
        f"whoever reaches {host or 'this machine'!r} could read and steer everything: set "
        "AIOTRACK_API_TOKENS (or --token) to a secret of at least 16 characters, or serve on "
        "127.0.0.1 alone",
    )


def _is_loopback(address: Address) -> bool:
    return ipaddress.ip_address(str(address[1][0]).partition("%")[0]).is_loopback


def _listen(host: str, addresses: Iterable[Address]) -> list[socket.socket]:
    """Open a socket for each address, all on one port.

    Raises:
        InvalidValue: The port is taken, or the address is not this machine's.
    """
    opened: list[socket.socket] = []
    port = None
    try:
        for family, address in addresses:
            one = socket.socket(family, socket.SOCK_STREAM)
            opened.append(one)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD)
            if family is socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.bind((address[0], address[1] or port or 0, *address[2:]))
            one.listen(BACKLOG)
            port = one.getsockname()[1]
    except OSError as error:
        for one in opened:
            one.close()
        raise InvalidValue(f"cannot listen on {host}: {error}; is the port taken?") from error
    return opened


def _run(
    app: FastAPI, tracker: Tracker, sockets: list[socket.socket], names: set[str] | None
) -> None:
    """Serve until a signal comes.

    Args:
        app: What is served.
        tracker: Its own.
        sockets: Where.
        names: Under which names it may be asked for; None: any.

    Raises:
        MissingExtra: uvicorn is not installed.
    """
    try:
        import uvicorn
    except ModuleNotFoundError:
        raise MissingExtra("uvicorn", "api", "aiotrack serve") from None

    from aiotrack.api.hub import hub_of

    class Server(uvicorn.Server):
        """Tells where it is, once it can be reached; and ends what would never end."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            for one in sockets or []:
                typer.echo(f"aiotrack serves {_url(one)}/api/v1 (Ctrl-C stops it)")
                typer.echo(f"the dashboard is at {_url(one)}/")

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            hub_of(tracker.core()).close()
            await super().shutdown(sockets)

    for one in (signal.SIGINT, signal.SIGTERM):  # uvicorn obeys, and then gives them back to these
        signal.signal(one, lambda *_: None)
    config = uvicorn.Config(
        app if names is None else _OnlyNamed(app, names),
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=PATIENCE,
    )
    Server(config).run(sockets)


def _url(one: socket.socket) -> str:
    host, port = one.getsockname()[:2]
    return f"http://[{host}]:{port}" if one.family is socket.AF_INET6 else f"http://{host}:{port}"


class _OnlyNamed:
    """Refuses requests for names that are not this server's.

    Without a token, a page of anybody's could have its own name lead to 127.0.0.1, and then read
    all through the browser that shows it.
    """

    def __init__(self, app: FastAPI, names: Iterable[str]) -> None:
        self._app = app
        self._names = {"localhost", "127.0.0.1", "[::1]"}
        self._names |= {f"[{name}]" if ":" in name else name.lower() for name in names}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            sent = dict(scope["headers"]).get(b"host", b"").decode("latin-1").lower()
            name, _, port = sent.rpartition(":")
            if (name if port.isdigit() else sent) not in self._names:
                from aiotrack.api.problems import answer

                told = "without a token this server answers to its own name only"
                await answer(403, "unknown-host", told)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def add_to(app: typer.Typer) -> None:
    """Add the verb to the program."""
    app.command()(serve)
