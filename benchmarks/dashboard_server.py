"""taskiq-dashboard's own server, on a free port, with the database named on the command line."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys

import uvicorn
from taskiq_dashboard import TaskiqDashboard


async def main(database: str) -> None:
    made = TaskiqDashboard(api_token="token", storage_type="postgres", database_dsn=database)
    made.settings.cleanup.is_enabled = False  # it would remove what we count
    config = uvicorn.Config(made.application, log_level="critical", access_log=False)
    server = uvicorn.Server(config)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)  # who connects before it serves has to wait, and is not refused
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        print(listener.getsockname()[1], flush=True)
        await asyncio.to_thread(sys.stdin.read)  # until the parent lets go
        server.should_exit = True
        with contextlib.suppress(asyncio.CancelledError):
            await serving


if __name__ == "__main__" and sys.argv[1:2] == ["--serve"]:
    asyncio.run(main(sys.argv[2]))
