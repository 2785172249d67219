"""An HTTP server that takes what TaskiqAdminMiddleware posts, as cheaply as Python can.

It keeps every event by task in memory: nothing is lost or overwritten here, so it is the best
server that such a middleware could have. GET gives all as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import defaultdict
from typing import Any

Events = defaultdict[str, list[tuple[str, bytes]]]


class Sink(asyncio.Protocol):
    """HTTP/1.1 with keep-alive, as far as an HTTP client's POST with a length needs it."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._held = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._held += data
        while (end := self._held.find(b"\r\n\r\n")) >= 0:
            head = self._held[:end]
            found = head.lower().find(b"content-length:")
            length = int(head[found + 15 :].split(b"\r\n", 1)[0]) if found >= 0 else 0
            if len(self._held) < end + 4 + length:
                return
            body = self._held[end + 4 : end + 4 + length]
            self._held = self._held[end + 4 + length :]
            self._answer(head, body)

    def _answer(self, head: bytes, body: bytes) -> None:
        method, path, _ = head.split(b" ", 2)
        text = b"{}"
        if method == b"POST":
            *_, task_id, event = path.decode().split("/")
            self._events[task_id].append((event, body))
        else:
            told = {
                task: [(event, json.loads(body)) for event, body in every]
                for task, every in self._events.items()
            }
            text = json.dumps(told).encode()
        self._transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
            % (len(text), text)
        )


async def main() -> None:
    events: Events = defaultdict(list)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Sink(events), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)  # until the parent lets go


if __name__ == "__main__" and "--serve" in sys.argv:
    try:
        import uvloop
    except ImportError:
        asyncio.run(main())
    else:
        uvloop.run(main())
