"""Real PostgreSQL and Valkey servers for the demo and for tests, from the ``embedded`` extra.

A server keeps its port and its data while it is stopped, killed, paused and started again.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
from pathlib import Path

from aiotrack.testing.binaries import postgres_binaries, valkey_binary
from aiotrack.testing.process import Account, ServerFailed, ServerProcess
from aiotrack.testing.server import HOST, START_TIMEOUT, Server


class PostgresServer(Server):
    """A PostgreSQL of its own, with default durability, on loopback and a Unix socket.

    Run by root it takes the rights of ``nobody``, because PostgreSQL refuses root. A password
    keeps other users of the machine out.

    Args:
        data_dir: A folder that stays after `close`; None takes a temporary one. Run by root, it
            must be reachable for ``nobody`` and is handed over to that account.
        port: A fixed port; None takes a free one.
        start_timeout: Seconds until it must answer, also to wait for a taken port.
        settings: Server settings over ours, such as ``{"fsync": "off"}``.
        standby_of: A running server whose data it copies and whose changes it follows, read-only,
            until `promote`; the passwords are the same.
    """

    user = "postgres"
    _clean = signal.SIGINT  # 'fast': open transactions are rolled back, a checkpoint is written
    _quick = signal.SIGQUIT  # 'immediate': no checkpoint, but shared memory is given back

    def __init__(
        self,
        *,
        data_dir: Path | None = None,
        port: int | None = None,
        start_timeout: float = START_TIMEOUT,
        settings: dict[str, str] | None = None,
        standby_of: PostgresServer | None = None,
    ) -> None:
        super().__init__(data_dir=data_dir, port=port, start_timeout=start_timeout)
        self._primary = standby_of
        self._settings = {"max_connections": "200", "shared_buffers": "128MB"} | (settings or {})
        self._account = Account.unprivileged()
        self._password = ""

    @property
    def dsn(self) -> str:
        """For asyncpg and psql: ``postgresql://…/postgres``."""
        return self.dsn_of("postgres")

    @property
    def url(self) -> str:
        """For SQLAlchemy and `Tracker`: ``postgresql+asyncpg://…/postgres``."""
        return self.url_of("postgres")

    @property
    def socket_dir(self) -> Path:
        """Where the Unix socket is."""
        return self._folder()

    def dsn_of(self, database: str) -> str:
        """Give the address of another *database* for asyncpg and psql."""
        return f"postgresql://{self.user}:{self._password}@{HOST}:{self.port}/{database}"

    def url_of(self, database: str) -> str:
        """Give the address of another *database* for SQLAlchemy and `Tracker`."""
        return self.dsn_of(database).replace("postgresql:", "postgresql+asyncpg:", 1)

    def create_database(self, name: str, template: str | None = None) -> str:
        """Create a database, empty or as a copy of *template*; give its SQLAlchemy URL."""
        copied = f' TEMPLATE "{_safe(template)}"' if template else ""
        self.psql(f'CREATE DATABASE "{_safe(name)}"{copied}')
        return self.url_of(name)

    def drop_database(self, name: str) -> None:
        """Drop a database if it is there, with whoever is connected to it."""
        self.psql(f'DROP DATABASE IF EXISTS "{_safe(name)}" WITH (FORCE)')

    def psql(self, statement: str, database: str = "postgres") -> str:
        """Run one *statement* and give its output, unaligned.

        Raises:
            ServerFailed: psql did not succeed; its words are in the message.
        """
        options = ("-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-h", str(self.socket_dir))
        done = subprocess.run(
            [self._binary("psql"), *options, "-p", str(self.port), "-U", self.user, "-d", database,
             "-c", statement],
            check=False,
            capture_output=True,
            text=True,
            timeout=START_TIMEOUT,
        )  # fmt: skip
        if done.returncode:
            raise ServerFailed(done.stderr.strip())
        return done.stdout.strip()

    def promote(self) -> None:
        """Make a standby the server that takes writes; returns when it does.

        Raises:
            ServerFailed: It is no standby, or did not follow in time.
        """
        if self.psql(f"SELECT pg_promote(true, {START_TIMEOUT:.0f})") != "t":
            raise ServerFailed(f"the standby was not promoted in {START_TIMEOUT:g} s")

    def _binary(self, name: str) -> str:
        return str(postgres_binaries(for_others=self._account is not None) / name)

    def _prepare(self) -> None:
        """Make the cluster, or read the password of one that is there."""
        self._own(self._folder())
        secret = self.data_dir / "aiotrack.secret"
        if secret.exists():
            self._password = secret.read_text()
            return
        if self._data_dir is not None:
            self._data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._own(self._data_dir)
        if self._primary is not None:
            self._copy(self._primary)
            self._password = secret.read_text()
            return
        self._password = secrets.token_hex(16)
        password_file = self._folder() / "password"
        password_file.touch(mode=0o600)
        password_file.write_text(self._password)
        self._own(password_file)
        self._initdb(password_file)
        secret.touch(mode=0o600)
        secret.write_text(self._password)
        self._own(secret)
        password_file.unlink()

    def _initdb(self, password_file: Path) -> None:
        command = [
            self._binary("initdb"),
            *("--pgdata", str(self.data_dir), "--username", self.user, "--encoding=UTF8"),
            *("--no-locale", "--auth-local=trust", "--auth-host=scram-sha-256"),
            # The password is random: hashing it 4,096 times for each connection protects nothing.
            *("--pwfile", str(password_file), "--set", "scram_iterations=1", "--no-instructions"),
        ]
        self._run(command)

    def _copy(self, primary: PostgresServer) -> None:
        """Take the data of *primary*, and follow it from then on."""
        where = f"host={primary.socket_dir} port={primary.port} user={self.user}"
        options = ("--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast")
        self._run([self._binary("pg_basebackup"), "-d", where, "-D", str(self.data_dir), *options])

    def _run(self, command: list[str]) -> None:
        """Run a tool with the server's rights."""
        account = self._account
        done = subprocess.run(
            command,
            check=False,
            cwd=self._folder(),
            capture_output=True,
            text=True,
            timeout=START_TIMEOUT,
            user=None if account is None else account.uid,
            group=None if account is None else account.gid,
            extra_groups=None if account is None else [],
        )
        if done.returncode:
            tool = Path(command[0]).name
            raise ServerFailed(f"{tool} failed:\n{done.stdout[-1000:]}{done.stderr}")

    def _own(self, path: Path) -> None:
        if self._account is not None:
            os.chown(path, self._account.uid, self._account.gid)

    def _spawn(self) -> ServerProcess:
        settings = {
            "listen_addresses": HOST,
            "port": str(self.port),
            "unix_socket_directories": str(self.socket_dir),
            **self._settings,
        }
        return ServerProcess(
            [
                *(self._binary("postgres"), "-D", str(self.data_dir)),
                *(part for key, value in settings.items() for part in ("-c", f"{key}={value}")),
            ],
            cwd=self._folder(),
            log_file=self.log_file,
            account=self._account,
            death=self._quick,
        )

    def _is_ready(self, process: ServerProcess) -> bool:
        """Read what pg_ctl reads: the server says in its pid file that it takes connections."""
        try:
            lines = (self.data_dir / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return len(lines) > 7 and int(lines[0]) == process.pid and lines[7].strip() == "ready"


class ValkeyServer(Server):
    """A Valkey of its own on loopback; DEBUG is allowed, so that tests can make it slow.

    Args:
        data_dir: A folder that stays after `close`; None takes a temporary one.
        port: A fixed port; None takes a free one.
        start_timeout: Seconds until it must answer, also to wait for a taken port.
        appendonly: Keep the data over a restart; without it every start is empty.
        settings: Server settings over ours, such as ``{"cluster-enabled": "yes"}``.
    """

    def __init__(
        self,
        *,
        data_dir: Path | None = None,
        port: int | None = None,
        start_timeout: float = START_TIMEOUT,
        appendonly: bool = False,
        settings: dict[str, str] | None = None,
    ) -> None:
        super().__init__(data_dir=data_dir, port=port, start_timeout=start_timeout)
        self._settings = settings or {}
        self._appendonly = appendonly

    @property
    def url(self) -> str:
        """For redis-py and the brokers: ``redis://127.0.0.1:port/0``."""
        return f"redis://{HOST}:{self.port}/0"

    def _prepare(self) -> None:
        self.data_dir.mkdir(parents=True, exist_ok=True)

    def _spawn(self) -> ServerProcess:
        options = {
            "--bind": HOST,
            "--port": str(self.port),
            "--dir": str(self.data_dir),
            "--save": "",
            "--appendonly": "yes" if self._appendonly else "no",
            "--enable-debug-command": "yes",
            **{f"--{name}": value for name, value in self._settings.items()},
        }
        return ServerProcess(
            [str(valkey_binary()), *(part for option in options.items() for part in option)],
            cwd=self.data_dir,
            log_file=self.log_file,
            death=self._quick,
        )

    def _is_ready(self, process: ServerProcess) -> bool:
        """Ask for its process id: another server may sit on the port; then for PONG (loaded)."""
        with contextlib.suppress(OSError), socket.create_connection((HOST, self.port), 1) as link:
            link.sendall(b"INFO server\r\n")
            words = b""
            while b"process_id:" not in words or not words.endswith(b"\r\n"):
                if not (some := link.recv(65_536)):
                    return False
                words += some
            if f"process_id:{process.pid}\r\n".encode() not in words:
                return False
            link.sendall(b"PING\r\n")
            return link.recv(64).startswith(b"+PONG")
        return False


def _safe(name: str | None) -> str:
    return (name or "").replace('"', '""')
