"""Who may do what: tokens with scopes, the caller as the application knows it, and his own."""

from __future__ import annotations

import hmac
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.requests import Request

from aiotrack.api.problems import Refused
from aiotrack.errors import InvalidSetting

LEAST: Final = 16
"""Characters of a secret: what is shorter can be guessed."""

ACCESS: Final = ("all", "read_only", "own", "none")

SAFE: Final = {"GET", "HEAD", "OPTIONS"}


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
        sent = request.headers.get("access-token")
        kind, _, rest = request.headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            sent = rest.strip()
        if sent is None:
            if self._has_user:
                return None
            raise unauthorized("a token is needed: Authorization: Bearer ...")
        found = None
        for token in self._tokens:  # all of them: how long it takes tells nothing
            if hmac.compare_digest(token.secret.encode(), sent.encode("utf-8", "replace")):
                found = token
        if found is None:
            raise unauthorized("nobody has this token")
        return Caller(actor=found.name, scope=found.scope)


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
    if (
        site is None
        and origin is not None
        and urlsplit(origin).netloc != request.headers.get("host")
    ):
        raise Refused(403, "cross-origin", "another site's page may not write here")


def of_user(user: Any, access: object) -> Caller:
    """Make a caller of what the application says of him.

    Args:
        user: His id, or an object with ``id``; None: nobody.
        access: ``all``, ``read_only``, ``own`` or ``none``.

    Raises:
        Refused: Nobody has signed in, or he may do nothing.
    """
    found = user if user is None or isinstance(user, (str, int)) else getattr(user, "id", None)
    if found is None:
        raise unauthorized("nobody has signed in")
    if access not in ACCESS:
        raise Refused(403, "forbidden", "the application gives no access that is known")
    if access == "none":
        raise Refused(403, "forbidden", "the application gives no access")
    scope = Scope.READ if access == "read_only" else Scope.ADMIN
    if access == "own":
        scope = Scope.OPERATE
    return Caller(id=str(found), actor=str(found), scope=scope, is_own=access == "own")


def as_dependency(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a plain ``lambda request: ...`` be a dependency, too."""
    needed = [
        one
        for one in inspect.signature(function).parameters.values()
        if one.default is inspect.Parameter.empty
    ]
    if len(needed) != 1 or needed[0].annotation is not inspect.Parameter.empty:
        return function

    async def call(request: Request) -> Any:
        found = function(request)
        return await found if inspect.isawaitable(found) else found

    return call
