"""Who may do what: tokens with scopes, the caller as the application knows it, and his own."""

from __future__ import annotations

import functools
import hmac
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any, Final
from urllib.parse import urlsplit
from uuid import UUID

from fastapi.params import Depends
from pydantic.fields import FieldInfo
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from aiotrack.api.problems import Refused
from aiotrack.errors import InvalidSetting

LEAST: Final = 16
"""Characters of a secret: what is shorter can be guessed."""

ACCESS: Final = ("all", "read_only", "own", "none")

NAMES: Final = ("id", "user_id", "sub")
"""Where the id of somebody is looked for, in this order."""

SAFE: Final = {"GET", "HEAD", "OPTIONS"}

_IDS: Final = (str, int, UUID)
_MANY: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class Scope(StrEnum):
    """What a token, or a caller, may do; each includes those before."""

    READ = "read"
    OPERATE = "operate"
    ADMIN = "admin"

    def covers(self, other: Scope) -> bool:
        """Whether who has this scope may do what needs the other."""
        order = list(Scope)
        return order.index(self) >= order.index(other)


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A secret that opens the API.

    Args:
        secret: At least 16 characters, sent as ``Authorization: Bearer`` or ``access-token``.
        scope: What it opens.
        name: Who has it, for the audit.

    Raises:
        InvalidSetting: The secret is too short, or no header can carry it.
    """

    secret: str = field(repr=False)
    scope: Scope = Scope.ADMIN
    name: str = "token"

    def __post_init__(self) -> None:
        if len(self.secret) < LEAST or not self.secret.isascii() or not self.secret.isprintable():
            fault = f"a secret has at least {LEAST} printable ASCII characters"
            raise InvalidSetting("api_tokens", fault)

    @classmethod
    def parse(cls, text: str) -> Token:
        """Read ``secret``, ``scope:secret`` or ``name:scope:secret``.

        Raises:
            InvalidSetting: It is none of them.
        """
        *head, secret = text.strip().split(":", 2)
        word = head[-1] if head else Scope.ADMIN
        if word not in set(Scope):
            fault = "write a token as SECRET, SCOPE:SECRET or NAME:SCOPE:SECRET, "
            raise InvalidSetting("api_tokens", fault + "with the scope read, operate or admin")
        return cls(secret=secret, scope=Scope(word), name=head[0] if len(head) == 2 else "token")


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks.

    Attributes:
        id: As ``created_by`` of what he sends; None: nobody in particular.
        actor: As the audit names him.
        scope: What he may do.
        is_own: He sees and touches only what he sent.
    """

    id: str | None = None
    actor: str | None = None
    scope: Scope = Scope.ADMIN
    is_own: bool = False

    def may(self, scope: Scope, *, of_all: bool) -> bool:
        """Whether he may do what needs *scope*, to executions of his own or (*of_all*) to all."""
        return self.scope.covers(scope) and not (of_all and self.is_own)


ANYBODY: Final = Caller()


class Gate:
    """Looks at what a request brings along, before its body is read.

    Args:
        tokens: Those that open the API; without any, only *has_user* stands before it.
        has_user: Whether the application says who calls.
    """

    def __init__(self, tokens: Iterable[Token], *, has_user: bool) -> None:
        self._tokens = tuple(tokens)
        self._has_user = has_user

    @property
    def has_tokens(self) -> bool:
        """Whether any token opens the API."""
        return bool(self._tokens)

    def caller(self, request: Request) -> Caller | None:
        """Give who has the token that was sent; None: the application has to say who calls.

        Raises:
            Refused: A token is needed, or nobody has this one.
        """
        if not self._tokens:
            return None if self._has_user else ANYBODY
        sent = _sent(request.headers)
        found = self._token(sent)
        if found is not None:
            return Caller(actor=found.name, scope=found.scope)
        if self._has_user:  # what is no token of ours may be the application's own
            return None
        if sent is None:
            raise unauthorized("a token is needed: Authorization: Bearer ...")
        raise unauthorized("nobody has this token")

    def knows(self, headers: Mapping[str, str]) -> bool:
        """Whether a token came along that somebody has."""
        return self._token(_sent(headers)) is not None

    def _token(self, sent: str | None) -> Token | None:
        if sent is None:
            return None
        found = None
        for token in self._tokens:  # all of them: how long it takes tells nothing
            if hmac.compare_digest(token.secret.encode(), sent.encode("utf-8", "replace")):
                found = token
        return found


def _sent(headers: Mapping[str, str]) -> str | None:
    """Give the token that was sent."""
    kind, _, rest = headers.get("authorization", "").partition(" ")
    return rest.strip() if kind.lower() == "bearer" else headers.get("access-token")


def unauthorized(detail: str) -> Refused:
    """Make the refusal of somebody who is not known."""
    return Refused(401, "unauthorized", detail, {"WWW-Authenticate": 'Bearer realm="aiotrack"'})


def check_origin(request: Request) -> None:
    """Refuse what another site's page makes a browser send.

    Raises:
        Refused: A write from another origin: 403.
    """
    if request.method in SAFE:
        return
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    if site in {"cross-site", "same-site"}:
        raise Refused(403, "cross-origin", "another site's page may not write here")
    if site is None and origin is not None and _host_of(origin) != request.headers.get("host"):
        raise Refused(403, "cross-origin", "another site's page may not write here")


def _host_of(origin: str) -> str:
    """Give the host of an origin as a browser sends it; of what is none, nobody's."""
    try:
        return urlsplit(origin).netloc
    except ValueError:  # half an IPv6 address
        return ""


def of_user(user: Any, access: object) -> Caller:
    """Make a caller of what the application says of him.

    Args:
        user: His id, or an object or mapping that has it; None: nobody.
        access: ``all``, ``read_only``, ``own`` or ``none``.

    Raises:
        Refused: Nobody has signed in, or he may do nothing.
    """
    found = _id_of(user)
    if found is None:
        raise unauthorized("nobody has signed in")
    if access not in ACCESS:
        raise Refused(403, "forbidden", "the application gives no access that is known")
    if access == "none":
        raise Refused(403, "forbidden", "the application gives no access")
    scope = Scope.READ if access == "read_only" else Scope.ADMIN
    if access == "own":
        scope = Scope.OPERATE
    return Caller(id=found, actor=found, scope=scope, is_own=access == "own")


def _id_of(user: Any) -> str | None:
    """Give the id of somebody as text; None: nobody has one."""
    if not isinstance(user, _IDS):
        get = user.get if isinstance(user, Mapping) else functools.partial(_attribute, user)
        user = next((one for one in map(get, NAMES) if one is not None), None)
    if isinstance(user, bool) or not isinstance(user, _IDS):
        return None
    return str(user) or None  # a header that is there, and empty, is nobody's


def _attribute(user: object, name: str) -> Any:
    return getattr(user, name, None)


def as_dependency(given: Any, user: Depends | None = None) -> Callable[..., Any]:
    """Let what an application gives be a dependency: also ``Depends(...)``, and plain functions.

    Args:
        given: Its parameters are a dependency's; but one without an annotation is the request, and
            one that is called ``user`` is what *user* gives.
        user: The dependency that tells who calls. Of nobody is nothing asked: None.
    """
    function: Callable[..., Any] = getattr(given, "dependency", None) or given
    try:
        signature = inspect.signature(function, eval_str=True)
    except (NameError, AttributeError, TypeError):  # it can be read only where it was written
        signature = inspect.signature(function)
    known = signature.parameters
    filled = [_filled(one, user) for one in known.values()]
    changed = [one for one in filled if one is not known[one.name]]
    if not changed or inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        return function
    is_of_user = user is not None and any(one.name == "user" for one in changed)
    is_quick = len(changed) == len(filled) or inspect.iscoroutinefunction(function)

    async def call(**values: Any) -> Any:
        if is_of_user and values["user"] is None:
            return None
        if not is_quick:
            return await run_in_threadpool(function, **values)
        found = function(**values)
        return await found if inspect.isawaitable(found) else found

    call.__dict__["__signature__"] = signature.replace(parameters=filled)
    return call


def _filled(parameter: inspect.Parameter, user: Depends | None) -> inspect.Parameter:
    """Say what FastAPI is to give for a parameter that says nothing of it."""
    if parameter.default is not inspect.Parameter.empty or parameter.kind in _MANY:
        return parameter
    if user is not None and parameter.name == "user" and not _says_how(parameter.annotation):
        return parameter.replace(annotation=Annotated[Any, user])
    if parameter.annotation is inspect.Parameter.empty:
        return parameter.replace(annotation=Request)
    return parameter


def _says_how(annotation: Any) -> bool:
    told = getattr(annotation, "__metadata__", ())
    return any(isinstance(one, (Depends, FieldInfo)) for one in told)
