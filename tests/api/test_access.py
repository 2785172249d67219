"""R35: who may do what, for every route that there is; the matrix comes from the router."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Header, HTTPException, Request, Security
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import OAuth2PasswordBearer, SecurityScopes
from httpx import URL, AsyncClient, Response

from aiotrack import InvalidSetting, TaskStatus, Tracker
from aiotrack.api import Scope, Token, create_router
from aiotrack.api.router import RESOURCES
from aiotrack.api.routes import Entry
from tests.api.conftest import PREFIX, Clients, client_of

SECRETS = {scope: f"a-secret-of-{scope}-{'x' * 16}" for scope in Scope}
TOKENS = [f"{scope}:{secret}" for scope, secret in SECRETS.items()]

NEEDS_CALLER = {"/executions/my-tasks/"}

ENTRIES = [entry for resource in RESOURCES for entry in resource.routes.entries]

SENT: dict[str, dict[str, str]] = {
    "none": {},
    "empty": {"authorization": "Bearer "},
    "bad": {"authorization": f"Bearer {'y' * 40}"},
    "a part": {"authorization": f"Bearer {SECRETS[Scope.ADMIN][:-1]}"},
    "no latin": {"access-token": "tökén" * 8},
    **{scope: {"authorization": f"Bearer {secret}"} for scope, secret in SECRETS.items()},
    "header": {"access-token": SECRETS[Scope.ADMIN]},
}


def named(entry: Entry) -> str:
    """Give the name of a route."""
    return f"{entry.method} {entry.path}"


def paths(entry: Entry) -> Iterator[str]:
    """Give the path with parameters that nobody has, with a slash at its end and without."""
    path = re.sub(r"\{[^}]*\}", "987654321", entry.path).rstrip("/")
    yield path
    yield f"{path}/"


def cells_of(columns: Iterable[str]) -> Iterator[tuple[Entry, str, str]]:
    """Give every route by each of its paths with each of these."""
    for entry in ENTRIES:
        for path in paths(entry):
            for one in columns:
                yield entry, path, one


def is_let_in(entry: Entry, sent: str) -> int | None:
    """Give the status of the refusal that is due; None: no refusal."""
    if entry.scope is None:
        return None
    if sent not in {*Scope, "header"}:
        return 401
    scope = Scope.ADMIN if sent == "header" else Scope(sent)
    return None if scope.covers(entry.scope) else 403


@pytest.fixture
def database_url(made_sqlite_url: str) -> str:
    """Who may do what is no matter of the database."""
    return made_sqlite_url


async def ask(
    client: AsyncClient, entry: Entry, path: str, headers: dict[str, str] | None = None
) -> Response:
    """Ask for a route with a body where it takes one."""
    body = {"json": {}} if entry.method in {"POST", "PATCH", "PUT"} else {}
    raw = {name: value.encode() for name, value in (headers or {}).items()}
    return await client.request(entry.method, path, headers=raw, **body)


async def test_every_route_with_every_token(api: Clients) -> None:
    """Default deny: without the scope that the table names nobody comes in."""
    wrong, cells = [], 0
    async with api(tokens=TOKENS) as client:
        for entry, path, sent in cells_of(SENT):
            due = is_let_in(entry, sent)
            if due is None and entry.media is not None:
                continue  # an endless answer has tests of its own
            answer = await ask(client, entry, path, SENT[sent])
            if due is None and entry.path in NEEDS_CALLER:
                is_right = answer.status_code == 401  # a token is nobody in particular
            elif due is None:
                is_right = answer.status_code not in {401, 403, 405, 500}
            else:
                is_right = (due, "application/problem+json", due == 401) == (
                    answer.status_code,
                    answer.headers["content-type"],
                    "www-authenticate" in answer.headers,
                )
            cells += 1
            wrong += [] if is_right else [(named(entry), path, sent, answer.status_code)]

    assert [] == wrong
    assert cells > 500


@pytest.mark.parametrize("access", ["read_only", "own", "none", "nonsense"])
async def test_every_route_with_every_access(api: Clients, access: str) -> None:
    """Readers write nothing, and what is not a caller's own is closed to him."""
    wrong = []
    async with api(user=lambda request: "42", access=access) as client:
        for entry, path, _ in cells_of([""]):
            may = {
                "read_only": entry.scope is Scope.READ,
                "own": entry.scope is not Scope.ADMIN and not entry.of_all,
            }.get(access, False)
            if entry.scope is not None and not (may and entry.media):
                answer = await ask(client, entry, path)
                if (answer.status_code == 403) == may:
                    wrong.append((named(entry), path, answer.text))

    assert [] == wrong


async def test_nobody_who_has_not_signed_in(api: Clients) -> None:
    """A resolver that gives None is a 401, everywhere but where anybody may come."""
    wrong = []
    async with api(user=lambda request: None) as client:
        for entry, path, _ in cells_of([""]):
            answer = await ask(client, entry, path)
            if (answer.status_code == 401) != (entry.scope is not None):
                wrong.append((named(entry), path, answer.text))

    assert [] == wrong


async def test_writes_from_other_sites(api: Clients) -> None:
    """A page of another site cannot make a browser write, with whatever cookie."""
    writes = [entry for entry in ENTRIES if entry.method not in {"GET", "HEAD"}]
    forged: list[dict[str, str]] = [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://["},
        {"sec-fetch-site": "cross-site", "origin": "http://testserver"},
        {"sec-fetch-site": "same-site"},
    ]
    async with api() as client:
        for entry in writes:
            for headers in forged:
                answer = await client.request(
                    entry.method, next(paths(entry)), headers=headers, json={}
                )
                assert 403 == answer.status_code, (named(entry), answer.text)
                assert "cross-origin" == answer.json()["code"]


async def test_the_dependencies_of_an_application(tracker: Tracker) -> None:
    """They are asked first, and their refusals are problems like ours."""

    def refuse() -> None:
        raise HTTPException(401, "not today")

    for app, options in (
        (FastAPI(), {"dependencies": [Depends(refuse)]}),
        (FastAPI(dependencies=[Depends(refuse)]), {}),
    ):
        app.include_router(create_router(tracker, **options), prefix=PREFIX)
        async with client_of(app) as client:
            answer = await client.get("/workers/")
            assert (401, "not today") == (answer.status_code, answer.json()["detail"])


class SignedOut(LookupError):
    """An error of an application, for which it has an answer."""


async def test_errors_of_an_application_go_to_its_own_handlers(tracker: Tracker) -> None:
    """Where it has one for the class; those of the tracker, and of FastAPI, are problems."""

    def whoever(request: Request) -> str:
        if "x-user" not in request.headers:
            raise SignedOut
        return request.headers["x-user"]

    async def answer(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"told": type(error).__name__}, 418)

    app = FastAPI()
    app.include_router(create_router(tracker, user=whoever), prefix=PREFIX)
    for kind in (LookupError, ValueError, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, answer)
    async with client_of(app) as client:
        theirs = await client.get("/executions/")
        ours = [
            await client.get(path, headers={"x-user": "42"})
            for path in ("/executions/1/", "/executions/?order=up", "/executions/?after=x")
        ]

    assert (418, {"told": "SignedOut"}) == (theirs.status_code, theirs.json())
    assert [404, 422, 422] == [one.status_code for one in ours]
    assert {"application/problem+json"} == {one.headers["content-type"] for one in ours}


class Somebody:
    """A user as an application knows one."""

    id = 42


async def whoever(request: Request) -> Somebody | None:
    """Say who calls, as a dependency with a type."""
    return Somebody() if "x-user" in request.headers else None


HEADER = Depends(lambda: "x-user")


def named_by_header(x_user: Annotated[str | None, Header()] = None) -> str | None:
    """Say who calls, by a parameter of FastAPI's."""
    return x_user


async def named_by_query(user: str | None = None) -> str | None:
    """Say who calls, as pages must that listen to events: they cannot send headers."""
    return user


def named_by_scopes(needed: SecurityScopes) -> str:
    """Give the scopes that are asked for as a name."""
    return needed.scope_str


async def test_the_scopes_of_an_application(tracker: Tracker, api: Clients) -> None:
    """`Security` tells its dependency what is needed, as everywhere else."""
    await tracker.register("a1", "shop:pay", created_by="see steer")
    async with api(user=Security(named_by_scopes, scopes=["see", "steer"])) as client:
        assert 1 == len((await client.get("/executions/my-tasks/")).json()["items"])


@pytest.mark.parametrize(
    "user",
    [
        whoever,
        lambda request: request.headers.get("x-user"),
        named_by_header,
        Depends(named_by_header),
        named_by_query,
        lambda request, name=HEADER: request.headers.get(name),
    ],
)
async def test_who_calls_is_told_in_several_ways(tracker: Tracker, api: Clients, user: Any) -> None:
    """A dependency, also as `Depends`, a plain function of the request; on every kind of route."""
    await tracker.register("a1", "shop:pay", created_by=42)
    paths = (
        "/executions/",
        "/executions/1/logs/",
        "/executions/status/?task_id=a1",
        "/workers/",
        "/report/",
    )
    async with api(user=user) as client:
        for path in paths:
            assert 401 == (await client.get(path)).status_code
            params = {**URL(path).params, "user": "42"} if user is named_by_query else None
            answer = await client.get(path, params=params, headers={"x-user": "42"})
            assert 200 == answer.status_code, answer.text


@pytest.mark.parametrize(
    "found",
    [42, "42", Somebody(), {"id": 42}, {"user_id": "42"}, {"sub": "42"}, SimpleNamespace(sub=42)],
)
async def test_what_a_user_may_be(tracker: Tracker, api: Clients, found: Any) -> None:
    """An id, or what has one: an object, a mapping, the claims of a token."""
    await tracker.register("a1", "shop:pay", created_by=42)
    await tracker.register("a2", "shop:pay", created_by=7)
    async with api(user=lambda: found) as client:
        rows = (await client.get("/executions/my-tasks/")).json()["items"]
        assert ["a1"] == [one["task_id"] for one in rows]


@pytest.mark.parametrize("found", [None, "", False, {}, {"id": None}, object()])
async def test_what_is_nobody(api: Clients, found: Any) -> None:
    """Nothing that could be an id."""
    async with api(user=lambda: found) as client:
        assert 401 == (await client.get("/executions/")).status_code


def named_for_certain(x_user: Annotated[str, Header()], tenant: int) -> str:
    """Say who calls, by what has to be there."""
    return f"{tenant}:{x_user}"


async def test_what_a_resolver_needs_is_named(tracker: Tracker, api: Clients) -> None:
    """422 with FastAPI's own words, on every route; nothing is done before."""
    await tracker.register("a1", "shop:pay", created_by="7:ada", status="started")
    wrong = []
    async with api(user=named_for_certain) as client:
        for entry, path, _ in cells_of([""]):
            if entry.scope is not None:
                answer = await ask(client, entry, path)
                told = {one["path"] for one in answer.json().get("errors", ())}
                if answer.status_code != 422 or not {"header.x-user", "query.tenant"} <= told:
                    wrong.append((named(entry), path, answer.text))
        half = await client.get("/executions/?tenant=7")
        closed = await client.post("/executions/by-task-id/a1/cancel/?tenant=7")
        whole = await client.get("/executions/?tenant=7", headers={"x-user": "ada"})

    assert [] == wrong
    assert [["header.x-user"]] * 2 == [
        [error["path"] for error in one.json()["errors"]] for one in (half, closed)
    ]
    assert TaskStatus.STARTED is (await tracker.get("a1")).status
    assert 1 == len(whole.json()["items"])


def named_by_jwt(token: Annotated[str, Depends(OAuth2PasswordBearer("login"))]) -> str:
    """Say who calls, by a bearer that only the application reads."""
    if not token.startswith("jwt."):
        raise HTTPException(401, "this is no JWT")
    return token.removeprefix("jwt.")


async def test_tokens_beside_users(tracker: Tracker, api: Clients) -> None:
    """Of who has a token the application is not asked; what is none of them is left to it."""
    await tracker.register("a1", "shop:pay", created_by=42)
    reader = {"authorization": f"Bearer {SECRETS[Scope.READ]}"}
    paths = ("/executions/by-task-id/a%2Fb/", "/executions/by-task-id/a1/cancel/")
    async with api(user=named_by_jwt, tokens=TOKENS, access="own") as client:
        told = [
            await client.get("/executions/", headers={"authorization": sent})
            for sent in (reader["authorization"], "Bearer jwt.42", "Bearer jwt.7", "Bearer x")
        ]
        nobody = await client.get("/executions/")
        slash = await client.get(paths[0], headers=reader)
        refused = await client.post(paths[1], headers=reader)

    assert [(200, 1), (200, 1), (200, 0), (401, 0)] == [
        (one.status_code, len(one.json().get("items", ()))) for one in told
    ]
    assert "this is no JWT" == told[-1].json()["detail"]
    assert (401, 404, 403) == (nobody.status_code, slash.status_code, refused.status_code)
    assert "'a/b'" in slash.json()["detail"]


def access_by_both(user: Any, request: Request) -> str:
    """Give access by who calls, and by what he wants."""
    return "all" if user == "1" or request.url.path.endswith("/workers/") else "own"


@pytest.mark.parametrize(
    "access",
    [lambda user: "all" if user == "1" else "own", access_by_both, Depends(access_by_both)],
)
async def test_access_that_depends_on_who_calls(
    api: Clients, tracker: Tracker, access: Any
) -> None:
    """A parameter `user` is what the resolver gave; of nobody it is not asked."""
    await tracker.register("a1", "shop:pay", created_by=7)

    async with api(user=named_by_header, access=access) as client:
        told = {}
        for name in ("1", "2"):
            path = "/executions/?my_tasks=false"
            told[name] = (await client.get(path, headers={"x-user": name})).json()["items"]
        assert (1, 0) == (len(told["1"]), len(told["2"]))
        assert 401 == (await client.get("/executions/")).status_code


@pytest.mark.parametrize(
    "text", ["short", "ädmin:" + "x" * 20, "root:" + "x" * 20, "a:b:" + "x" * 20, "é" * 20]
)
def test_tokens_that_are_none(text: str) -> None:
    """They are refused when they are given, by what is wrong with them."""
    with pytest.raises(InvalidSetting, match="api_tokens"):
        Token.parse(text)


def test_tokens_are_read() -> None:
    """A secret alone opens all; names are for the audit."""
    assert Scope.ADMIN is Token.parse("x" * 16).scope
    assert Scope.READ is Token.parse("read:" + "x" * 16).scope
    assert "ci" == Token.parse("ci:operate:" + "x" * 16).name
    assert "x" * 16 not in repr(Token.parse("x" * 16))
