"""What `aiotrack serve` refuses, before it listens."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable

import pytest

from aiotrack import Settings, Tracker
from aiotrack.cli import app
from aiotrack.cli.serve import _addresses, _listen

SECRET = "x" * 24

Serve = Callable[..., str]


@pytest.fixture
def refused(
    made_sqlite_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Serve:
    """Run `aiotrack serve` with options that cannot be meant; give what it says."""
    monkeypatch.setenv("AIOTRACK_DATABASE_URL", made_sqlite_url)

    def serve(*options: str) -> str:
        code = app.run(["serve", *options])
        told = capsys.readouterr()
        assert (2, "") == (code, told.out)
        assert SECRET not in told.err
        return told.err

    return serve


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", socket.gethostname()])
def test_it_opens_nothing_to_everybody(host: str, refused: Serve) -> None:
    """Where others could reach it a token is needed, and the message says how to give one."""
    known = {str(address[0]) for _, address in _addresses(host, 0)}
    if all(name.startswith("127.") or name == "::1" for name in known):
        host = "0.0.0.0"  # this machine's name is its own affair
    told = refused("--host", host)

    assert "AIOTRACK_API_TOKENS" in told
    assert "127.0.0.1" in told


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--token", "short"), "16 printable"),
        (("--token", f"root:{SECRET}"), "the scope read, operate or admin"),
        (("--host", "no-such-host.invalid"), "no address of this machine"),
        (("--import", "json"), "name it, MODULE:BROKER"),
        (("json:loads",), "no broker"),
        (("no.module:broker",), "no.module"),
        (("no.module:broker", "-d", "sqlite+aiosqlite:///x.db"), "has a database"),
        (("--port", "70000"), "65535"),
    ],
)
def test_what_cannot_be_meant(options: tuple[str, ...], told: str, refused: Serve) -> None:
    """A line says what is wrong; secrets are not in it."""
    assert told in refused(*options)


def test_a_port_that_is_taken(refused: Serve) -> None:
    """It says so, and ends."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "taken" in refused("--port", str(taken.getsockname()[1]))


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="this system has none")
def test_connections_are_dropped_by_the_system() -> None:
    """The time for a peer that takes nothing is that of every connection, not of the listener."""
    (listener,) = _listen("127.0.0.1", _addresses("127.0.0.1", 0))
    with listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            option = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)

    assert 10_000 == option


def test_all_addresses_of_a_name_share_a_port() -> None:
    """A name may mean several addresses, and one free port is looked for."""
    opened = _listen("localhost", _addresses("localhost", 0))
    ports = {one.getsockname()[1] for one in opened}
    for one in opened:
        one.close()

    assert 1 == len(ports)


async def test_secrets_are_shown_nowhere(
    made_sqlite_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not in what is said of settings, nor in a repr."""
    monkeypatch.setenv("AIOTRACK_API_TOKENS", f"{SECRET}, ci:read:{SECRET}")
    async with Tracker(made_sqlite_url) as tracker:
        explained = await tracker.settings.explain("api_tokens")

    assert (SECRET, f"ci:read:{SECRET}") == Settings.load().api_tokens
    assert ["...", "ci:read:..."] == explained.value
    assert SECRET not in repr(Settings.load())
    assert SECRET not in json.dumps(dict(explained.layers))
