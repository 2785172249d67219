"""`mount_dashboard`: the routes that serve the page and its files, from memory."""

from __future__ import annotations

import gzip
import hashlib
import html
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from aiotrack.errors import InvalidValue

FOLDER: Final = Path(__file__).parent / "static"

KINDS: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

FOREVER: Final = "public, max-age=31536000, immutable"
"""Of a file whose address names its content."""


@dataclass(frozen=True, slots=True)
class Asset:
    """A file as it is sent."""

    kind: str
    content: bytes
    packed: bytes
    etag: str

    @classmethod
    def of(cls, name: str, content: bytes) -> Asset:
        """Pack a file."""
        etag = f'"{hashlib.sha256(content).hexdigest()[:20]}"'
        packed = gzip.compress(content, mtime=0)
        return cls(KINDS[posixpath.splitext(name)[1]], content, packed, etag)

    def answer(self, request: Request, *, cache: str) -> Response:
        """Send it, unless the browser has it."""
        headers = HEADERS | {"Cache-Control": cache, "ETag": self.etag, "Vary": "Accept-Encoding"}
        known = request.headers.get("if-none-match", "")
        if self.etag in (one.strip().removeprefix("W/") for one in known.split(",")):
            return Response(status_code=304, headers=headers)
        content = self.content
        if "gzip" in request.headers.get("accept-encoding", ""):
            content, headers = self.packed, headers | {"Content-Encoding": "gzip"}
        return Response(content, headers=headers, media_type=self.kind)


def mount_dashboard(app: Starlette, *, api: str = "/api/v1", prefix: str = "/") -> None:
    """Add the dashboard to an application that has the REST API.

    The page finds its files and the API by relative addresses: it works under any prefix, in an
    application that is mounted in another, and behind a proxy that takes a part of the path away.
    Files are read once. The page itself shows nothing of what was recorded: who may see that, the
    API decides.

    Args:
        app: A FastAPI or Starlette application.
        api: Where the API is, as a path in the same application; without a slash at its beginning
            it is relative to the dashboard's own address.
        prefix: Where the dashboard shall be.

    Raises:
        InvalidValue: *api* or *prefix* is no path.
    """
    for name, path in (("api", api), ("prefix", prefix)):
        if "//" in path or "\\" in path or set(path) & set("?#{}") or not path.isprintable():
            raise InvalidValue(f"{name} is no path: {path!r}")
    root = f"/{prefix.strip('/')}".rstrip("/")
    files = dict(_files())
    digest = hashlib.sha256(b"".join(one.etag.encode() for _, one in sorted(files.items())))
    version = digest.hexdigest()[:12]
    place = posixpath.relpath(api, root or "/") if api.startswith("/") else api
    page = (FOLDER / "index.html").read_text(encoding="utf-8")
    page = page.replace("{{api}}", html.escape(place)).replace("{{static}}", f"static/{version}")
    index = Asset.of("index.html", page.encode())

    async def show(request: Request) -> Response:
        return index.answer(request, cache="no-cache")

    async def give(request: Request) -> Response:
        found = files.get(request.path_params["name"])
        if found is None:
            raise HTTPException(404, "there is no such file")
        is_current = request.path_params["version"] == version  # else of a page before an upgrade
        return found.answer(request, cache=FOREVER if is_current else "no-cache")

    async def complete(_: Request) -> Response:
        return RedirectResponse(f"{posixpath.basename(root)}/", 308)  # whatever stands before it

    routes = [
        Route(f"{root}/", show, name="aiotrack-dashboard"),
        Route(f"{root}/static/{{version}}/{{name:path}}", give, name="aiotrack-dashboard-static"),
    ]
    if root:
        routes.append(Route(root, complete))
    app.router.routes.extend(routes)


def _files() -> Iterator[tuple[str, Asset]]:
    """Yield what the page loads."""
    for file in FOLDER.rglob("*"):
        name = file.relative_to(FOLDER).as_posix()
        if file.suffix in KINDS and name != "index.html":
            yield name, Asset.of(name, file.read_bytes())
