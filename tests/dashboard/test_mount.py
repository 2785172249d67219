"""The routes that serve the page: any prefix, strict headers, what browsers keep."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin

import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient, Response

import aiotrack.dashboard
from aiotrack import InvalidValue
from aiotrack.dashboard import mount_dashboard

STATIC = Path(aiotrack.dashboard.__file__).parent / "static"
MODULES = sorted(STATIC.rglob("*.js"))
MOST = 150_000
"""Bytes of all that the page loads."""

ORIGIN = "http://site.example"


def site(prefix: str, api: str) -> FastAPI:
    """Make an application whose API only says that it is there."""
    app = FastAPI(redirect_slashes=False, openapi_url=None)

    @app.get(f"{api}/here")
    def here() -> str:
        return "here"

    mount_dashboard(app, api=api, prefix=prefix)
    return app


def mounted(app: FastAPI, *places: str) -> FastAPI:
    """Mount an application within others."""
    for place in places:
        outer = FastAPI(redirect_slashes=False, openapi_url=None)
        outer.mount(place, app)
        app = outer
    return app


def client(app: FastAPI) -> AsyncClient:
    """Give a client of an application."""
    return AsyncClient(transport=ASGITransport(app), base_url=ORIGIN)


@pytest.mark.parametrize(
    ("app", "path"),
    [
        (site("/", "/api/v1"), "/"),
        (site("/dash", "/api/v1"), "/dash/"),
        (site("/a/b/c/", "/a/tracking"), "/a/b/c/"),
        (mounted(site("/", "/api/v1"), "/inner", "/outer"), "/outer/inner/"),
        (mounted(site("/dash", "/api"), "/sub"), "/sub/dash/"),
    ],
)
async def test_under_any_prefix(app: FastAPI, path: str) -> None:
    """From the page's own address all files and the API are found, as a browser would."""
    async with client(app) as web:
        page = await web.get(path)
        begin = f"{ORIGIN}{path}"
        found = re.findall(r'(?:href|src)="([^"#]+)"', page.text)
        for file in [*found, *(urljoin(found[-1], name) for name in imports(found[-1]))]:
            assert 200 == (await web.get(urljoin(begin, file))).status_code, file
        api = re.search(r'name="aiotrack-api" content="([^"]+)"', page.text)
        assert api is not None
        assert "here" == (await web.get(urljoin(begin, f"{api[1]}/here"))).json()


def imports(main: str) -> Iterator[str]:
    """Yield what the modules import, seen from the first of them."""
    assert main.endswith("/main.js")
    for module in MODULES:
        for name in re.findall(r'from "([^"]+)"', module.read_text(encoding="utf-8")):
            path = (module.parent / name).resolve()
            assert path in MODULES
            yield path.relative_to(STATIC).as_posix()


async def test_without_its_last_slash() -> None:
    """It leads to the page by a relative address, whatever a proxy took away."""
    async with client(mounted(site("/dash", "/api"), "/sub")) as web:
        answer = await web.get("/sub/dash")

        assert 308 == answer.status_code
        assert "dash/" == answer.headers["location"]


async def asked(path: str, **headers: str) -> Response:
    """Ask an application at its root."""
    async with client(site("/", "/api/v1")) as web:
        return await web.get(path, headers=headers)


async def test_headers() -> None:
    """Nothing inline, nothing from elsewhere, no frame, no guessing of types."""
    page = await asked("/")
    policy = dict(
        part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";")
    )

    assert "text/html; charset=utf-8" == page.headers["content-type"]
    assert "nosniff" == page.headers["x-content-type-options"]
    assert "no-referrer" == page.headers["referrer-policy"]
    assert {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "connect-src": "'self'",
        "img-src": "'self' data:",
        "base-uri": "'none'",
        "form-action": "'self'",
        "frame-ancestors": "'none'",
    } == policy


async def test_what_browsers_keep() -> None:
    """The page is asked for each time; files are kept for ever, by an address of their content."""
    page = await asked("/")
    assert "no-cache" == page.headers["cache-control"]
    again = await asked("/", **{"if-none-match": f'"other", W/{page.headers["etag"]}'})
    assert (304, b"") == (again.status_code, again.content)
    style = re.findall(r'href="([^"]+\.css)"', page.text)[0]
    file = await asked(f"/{style}")
    assert "immutable" in file.headers["cache-control"]
    assert "text/css; charset=utf-8" == file.headers["content-type"]
    old = await asked(f"/{re.sub('static/[^/]+', 'static/0123', style)}")

    assert (200, "no-cache") == (old.status_code, old.headers["cache-control"])


@pytest.mark.parametrize(
    "name", ["nothing.js", "../__init__.py", "%2e%2e/__init__.py", "index.html", "", "pages/"]
)
async def test_only_its_own_files(name: str) -> None:
    """A path that is none of the page's files is a 404."""

    assert 404 == (await asked(f"/static/0/{name}")).status_code


def test_weight() -> None:
    """All files together are small."""
    weight = sum(file.stat().st_size for file in STATIC.rglob("*") if file.is_file())

    assert weight < MOST


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.name)
def test_modules_make_no_markup(module: Path) -> None:
    """Text becomes text nodes and attributes: no module can make markup or code of it."""
    source = module.read_text(encoding="utf-8")

    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|DOMParser|createContextualFragment"
        r"|srcdoc|\beval\b|new Function|setTimeout\(\s*[\"'`]|https?://(?!www\.w3\.org/)|style[:=]",
        source,
    )


@pytest.mark.parametrize(
    "path", ["//evil.example", "https://evil.example/api", "/a?b", "/a#b", "/{a}", "/a\\b", "/a\nb"]
)
def test_what_is_no_path(path: str) -> None:
    """The API has to be where the page is."""
    with pytest.raises(InvalidValue):
        mount_dashboard(FastAPI(), api=path)
    with pytest.raises(InvalidValue):
        mount_dashboard(FastAPI(), prefix=path)
