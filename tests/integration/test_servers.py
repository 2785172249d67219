"""The embedded servers: real processes that can be killed, paused and restarted on their data."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import asyncpg
import psutil
import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from aiotrack.testing.process import Account, ServerFailed, poll
from aiotrack.testing.server import PORTS
from aiotrack.testing.servers import PostgresServer, ValkeyServer

PROGRAM = """
import os, signal
from aiotrack.testing.servers import {kind}
server = {kind}()
server.start()
print(server.pid, server.data_dir.parent, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


async def fetch(server: PostgresServer, query: str) -> object:
    """Run one query on a connection of its own."""
    connection = await asyncpg.connect(server.dsn)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def test_postgres_answers_on_loopback(own_postgres: PostgresServer) -> None:
    """The URL of a started server takes connections, with the durability of a fresh install."""

    assert own_postgres.port in PORTS
    assert own_postgres.running
    assert own_postgres.url.startswith("postgresql+asyncpg://")
    assert "on" == await fetch(own_postgres, "SHOW fsync")
    assert "on" == await fetch(own_postgres, "SHOW synchronous_commit")
    assert "200" == await fetch(own_postgres, "SHOW max_connections")


async def test_postgres_wants_its_password(own_postgres: PostgresServer) -> None:
    """Another user of the machine gets no connection."""
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(own_postgres.dsn.replace(":postgres", "", 1), password="wrong")


async def test_postgres_survives_kill_9_with_what_was_committed(
    own_postgres: PostgresServer,
) -> None:
    """After SIGKILL and a new start, port and committed rows are the same."""
    await fetch(own_postgres, "CREATE TABLE kept (x int)")
    await fetch(own_postgres, "INSERT INTO kept VALUES (7)")
    before = own_postgres.port, own_postgres.pid

    own_postgres.kill()
    with pytest.raises(OSError, match="onnect"):
        await asyncpg.connect(own_postgres.dsn)
    await asyncio.to_thread(own_postgres.start)

    assert 7 == await fetch(own_postgres, "SELECT x FROM kept")
    assert before[0] == own_postgres.port
    assert before[1] != own_postgres.pid


async def test_kill_takes_the_backends_too(own_postgres: PostgresServer) -> None:
    """Nobody goes on working for a killed server: a new one can start at once."""
    connection = await asyncpg.connect(own_postgres.dsn)
    backend = connection.get_server_pid()

    own_postgres.kill()

    assert not psutil.pid_exists(backend) or "zombie" == psutil.Process(backend).status()
    connection.terminate()


async def test_a_paused_postgres_hangs_and_goes_on(own_postgres: PostgresServer) -> None:
    """A paused server keeps connections and answers none; after resume the query is answered."""
    connection = await asyncpg.connect(own_postgres.dsn)
    own_postgres.pause()

    query = asyncio.ensure_future(connection.fetchval("SELECT 1"))
    done, _ = await asyncio.wait([query], timeout=0.3)
    own_postgres.resume()

    assert set() == done
    assert 1 == await asyncio.wait_for(query, 5)
    await connection.close()


@pytest.mark.parametrize("graceful", [True, False])
async def test_postgres_restarts_on_its_data(own_postgres: PostgresServer, graceful: bool) -> None:
    """A restart keeps rows, whether the server may write a checkpoint or not."""
    await fetch(own_postgres, "CREATE TABLE kept AS SELECT 3 AS x")

    own_postgres.restart(graceful=graceful)

    assert 3 == await fetch(own_postgres, "SELECT x FROM kept")


async def test_a_paused_postgres_can_be_stopped(own_postgres: PostgresServer) -> None:
    """Stopping wakes a paused server first, so that a failed test leaves nothing frozen."""
    own_postgres.pause()
    own_postgres.stop()

    assert not own_postgres.running


async def test_databases_are_made_from_templates_and_dropped(own_postgres: PostgresServer) -> None:
    """A database made from a template has its tables; dropping throws out who is connected."""
    own_postgres.create_database("origin")
    own_postgres.psql("CREATE TABLE t AS SELECT 5 AS x", "origin")
    url = own_postgres.create_database('a "copy"', template="origin")

    connection = await asyncpg.connect(own_postgres.dsn_of("origin"))
    own_postgres.drop_database("origin")

    assert url.endswith('/a "copy"')
    assert "5" == own_postgres.psql("SELECT x FROM t", 'a "copy"')
    with pytest.raises(ServerFailed, match="origin"):
        own_postgres.psql("SELECT 1", "origin")
    connection.terminate()


async def test_a_standby_follows_until_it_is_promoted(
    own_postgres: PostgresServer,
) -> None:
    """A copy has what the other commits and refuses writes; promoted, it outlives the other."""
    own_postgres.psql("CREATE TABLE kept AS SELECT 7 AS x")
    with PostgresServer(standby_of=own_postgres) as standby:
        own_postgres.psql("INSERT INTO kept VALUES (8)")
        for _ in poll(10):
            if standby.psql("SELECT count(*) FROM kept") == "2":
                break
        with pytest.raises(ServerFailed, match="read-only"):
            standby.psql("INSERT INTO kept VALUES (9)")
        own_postgres.kill()
        standby.promote()
        standby.psql("INSERT INTO kept VALUES (10)")

        assert [7, 8, 10] == await fetch(standby, "SELECT array_agg(x ORDER BY x) FROM kept")


def test_valkey_survives_kill_9_with_its_log(own_valkey: ValkeyServer) -> None:
    """With appendonly, keys are there after SIGKILL and a new start on the same port."""
    with Redis.from_url(own_valkey.url) as client:
        client.set("kept", "7")
    port = own_valkey.port

    own_valkey.kill()
    with Redis.from_url(own_valkey.url, retry=None) as client, pytest.raises(RedisConnectionError):
        client.ping()
    own_valkey.start()

    with Redis.from_url(own_valkey.url) as client:
        assert b"7" == client.get("kept")
    assert port == own_valkey.port


def test_a_paused_valkey_hangs_and_goes_on(own_valkey: ValkeyServer) -> None:
    """A paused server answers nobody; after resume it does, with its data."""
    options = {"socket_timeout": 0.3, "retry": None}
    with Redis.from_url(own_valkey.url, **options) as client:
        client.set("kept", "7")
        own_valkey.pause()
        with pytest.raises(RedisTimeoutError):
            client.get("kept")
        own_valkey.resume()

        assert b"7" == client.get("kept")


def test_valkey_without_a_log_starts_empty() -> None:
    """Without appendonly a restart is a Redis that lost everything: what sessions often run on."""
    with ValkeyServer() as server:
        with Redis.from_url(server.url) as client:
            client.set("lost", "7")
        server.restart()

        with Redis.from_url(server.url) as client:
            assert client.get("lost") is None


def test_two_servers_live_side_by_side(own_valkey: ValkeyServer) -> None:
    """Each has its own port and folder."""
    with ValkeyServer() as other:
        assert other.port != own_valkey.port
        assert other.data_dir != own_valkey.data_dir


def test_a_taken_port_fails_with_the_reason(own_valkey: ValkeyServer) -> None:
    """A fixed port that somebody holds is not waited for longer than told, and is named."""
    other = ValkeyServer(port=own_valkey.port, start_timeout=0.3)

    with pytest.raises(ServerFailed, match=str(own_valkey.port)):
        other.start()
    other.close()


def test_a_server_that_refuses_to_start_shows_its_log() -> None:
    """The server's own words are in the error."""
    server = PostgresServer(settings={"shared_buffers": "many"})

    with pytest.raises(ServerFailed, match="shared_buffers"):
        server.start()
    server.close()


def test_a_closed_server_leaves_no_file(tmp_path: Path) -> None:
    """The temporary folder goes with the server; a folder of the caller's stays and can go on."""
    with ValkeyServer() as server:
        temporary = server.data_dir.parent
    with (
        ValkeyServer(data_dir=tmp_path, appendonly=True) as server,
        Redis.from_url(server.url) as client,
    ):
        client.set("kept", "7")

    assert not temporary.exists()
    with (
        ValkeyServer(data_dir=tmp_path, appendonly=True) as server,
        Redis.from_url(server.url) as client,
    ):
        assert b"7" == client.get("kept")


def test_a_server_outlives_the_thread_that_started_it() -> None:
    """Started from a worker thread, it lives on when that thread has ended."""
    server = ValkeyServer()
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()

    with server, Redis.from_url(server.url) as client:
        assert client.ping()


def test_a_server_that_was_never_started_says_so() -> None:
    """Asking it for an address names the mistake."""
    with pytest.raises(ServerFailed, match="never started"):
        _ = ValkeyServer().url


@pytest.mark.parametrize("kind", ["PostgresServer", "ValkeyServer"])
def test_a_server_dies_with_its_parent(kind: str) -> None:
    """When the process that started it is killed with SIGKILL, the server ends too (Linux)."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(kind=kind)],
        check=False,
        capture_output=True,
        text=True,
    )
    pid, folder = done.stdout.split()

    assert -signal.SIGKILL == done.returncode
    for _ in poll(10):
        if not psutil.pid_exists(int(pid)) or "zombie" == psutil.Process(int(pid)).status():
            break
    else:
        pytest.fail("the server lives on")
    shutil.rmtree(folder)


def test_root_gives_its_rights_away(own_postgres: PostgresServer) -> None:
    """Run by root, PostgreSQL has an unprivileged account; else it has ours."""
    account = Account.unprivileged()
    expected = os.geteuid() if account is None else account.uid

    assert expected == psutil.Process(own_postgres.pid).uids().effective
    assert 0 != expected
