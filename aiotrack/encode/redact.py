"""Text that is safe to keep: secrets masked, NUL and lone surrogates replaced, sizes bounded.

Knows secrets by their name and by their shape. `encode.py` and `walk.py` stand on it.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections import UserDict, UserList, deque
from collections.abc import Iterable
from json.encoder import encode_basestring as quote
from typing import Any, Final
from uuid import UUID

REDACTED: Final = "[redacted]"
KEY_LENGTH: Final = 512  # characters; a guess

# A name is a secret when, lower-cased and without separators, it ends with one of these.
_ENDINGS: Final = (
    "accesskey",
    "apikey",
    "apikeys",
    "authorization",
    "cardnumber",
    "cookie",
    "cookies",
    "credential",
    "credentials",
    "creditcard",
    "creditcardnumber",
    "cvc",
    "cvv",
    "encryptionkey",
    "jwt",
    "passphrase",
    "passwd",
    "password",
    "passwordconfirm",
    "passwordconfirmation",
    "passwordhash",
    "passwords",
    "privatekey",
    "pwd",
    "secret",
    "secretkey",
    "secrets",
    "sessionkey",
    "signingkey",
    "socialsecuritynumber",
    "sshkey",
    "token",
)
# Too short or too common to be looked for at the end of other names ('compass', 'oauth').
_WHOLE: Final = frozenset({"auth", "pass", "ssn"})
# 'user_ssn' and 'userSSN', but not 'class_n', which loses its separator in the other check.
_SSN: Final = re.compile(r"(?:[^A-Za-z0-9][sS]|(?<=[a-z0-9])S)[sS][nN]\d*$")
_LAST: Final = frozenset(name[-3:] for name in (*_ENDINGS, *_WHOLE))
_SEPARATORS: Final = re.compile(r"[\W_]+")
_ASCII_SEPARATORS: Final = dict.fromkeys(code for code in range(128) if not chr(code).isalnum())
_ASCII_SEPARATORS_IN_LINES: Final = {code: None for code in _ASCII_SEPARATORS if code != ord("\n")}
_DIGITS = "0123456789"
_NAME_LENGTH = 128  # longer names are not remembered; a guess
_TAIL_LENGTH = 64  # the end of a name holds any of ours with its separators
_RULE_LENGTH = 1024  # characters of a name that are held against the rules of the user
_NAMES_KEPT = 4096  # decisions kept per encoder: data used as keys must not fill the memory

MARGIN: Final = 2048  # characters read beyond a cut, so that a secret across it is still recognised
_MAX_PAIRS = 1000  # `name=value` pairs examined in one text: about 2 ms
_SURROGATES: Final = re.compile("[\ud800-\udfff]+")

# Each pattern starts at most once per run of its own characters: linear on any input.
_URL_PASSWORD: Final = re.compile(r"(://[^\s/?#@:]*+:)[^\s/?#]+(?=@)")
_JWT: Final = re.compile(r"(?<![\w-])eyJ[\w-]{4,}+\.[\w-]{4,}+(?:\.[\w-]*+){0,4}")
_BEARER: Final = re.compile(
    r"\b(bearer\s{1,4})(?!(?:auth\w*+|tokens?|realm|scheme|header)\b)[\w.~+/=:-]{6,}+",
    re.IGNORECASE,
)
_PEM: Final = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,40}?PRIVATE KEY(?: BLOCK)?-----"
    r"[\s\S]*?(?:-----END [A-Z0-9 ]{0,40}?PRIVATE KEY(?: BLOCK)?-----|\Z)"
)
_AWS: Final = re.compile(r"(?<![A-Z0-9])A[KS]IA[A-Z0-9]{16}(?![A-Z0-9])")

_NAME: Final = re.compile(r"(?<![\w.-])([\w.-]{1,128}+)(?:\\?[\"'])?\s{0,4}[=:]\s{0,4}")
_EQUAL: Final = re.compile(_NAME.pattern.replace("[=:]", "="))
# The same in JSON, where a name may stand behind an escape and before an escaped quote; the names
# of its own objects, before a bare quote, are none of them.
_JSON_NAME: Final = re.compile(r"(?<![\w.-])([\w.-]{1,128}+)(?:\\+[\"']|')?\s{0,4}[=:]")
_QUOTED = (
    r"[bBrRuUfF]?\"(?:[^\"\\\n]|\\.)*+\"?|[bBrRuUfF]?'(?:[^'\\\n]|\\.)*+'?"
    r"|\\[\"'][^\"'\\]*+\\?[\"']?"
)
_LITERAL: Final = re.compile(_QUOTED)
_VALUE: Final = re.compile(
    _QUOTED + r"|(?i:bearer|basic|digest|token)\s{1,4}[^\s,;\"']++"
    r"|[\[({][^\])}\n]*+[\])}]?|[^\s,;&\"'}\])>]++"
)
_COOKIE: Final = re.compile(_QUOTED + r"|[^\r\n\"']++")

# A flag with its word: `--key X`, `--key=X`, `'--key', 'X'`; no prose, flag or sign behind it.
_FLAG: Final = re.compile(
    r"-(?<![\w.-]-)-?([A-Za-z][\w.-]{0,127}+)(?:=(?=[^\s=])|[ \t]++(?:\\\r?\n[ \t]*+)?(?=\S)"
    r"(?![=:]|--|-\w\b|(?:and|or|is|was|not|must|flag|option|argument|needs|requires)(?!\S))"
    r"|\\?[\"'],?\s{0,32}(?=\d|[bBrRuUfF]?\\?[\"'](?!--|-\w\b)))"
)
_JSON_FLAG: Final = re.compile(r"-(?:(?<![\w.-]-)|(?<=\\[nrt]-))-?([A-Za-z][\w.-]*+)[ \\']")
_DASHES: Final = ("--", " -", '"-', "'-", "\\n-")  # at the beginning of a word, in JSON
_WORD: Final = re.compile(
    _QUOTED + r"|(?i:bearer|basic|digest|token)[ \t]{1,4}[^\s\"']++"
    r"|[^\s\"']++(?:[\"'](?=\w)[^\s\"']++)*+"
)

_ID_LENGTH = 255  # the column's width
_ID_END = 1 << 18
_ID_HEAD = _ID_LENGTH - 1 - 64
_ID_DIGEST: Final = re.compile("~[0-9a-f]{64}")
_ID_UNSAFE: Final = re.compile("[\x00%\ud800-\udfff]")
_IDS: Final = frozenset({int, float, bool, type(None), UUID})
_HOLDERS: Final = (list, tuple, dict, set, frozenset, deque, bytes, bytearray, UserDict, UserList)

# Taken from `type` itself: a metaclass can shadow these names with anything.
_module_of = type.__dict__["__module__"].__get__
_qualname_of = type.__dict__["__qualname__"].__get__


def clean(text: str) -> str:
    """Return *text* as PostgreSQL takes it: NUL as U+2400, lone surrogates as U+FFFD."""
    if "\0" in text:
        text = text.replace("\0", "\u2400")
    return text if text.isascii() else _SURROGATES.sub(_replaced, text)


def _replaced(match: re.Match[str]) -> str:
    return "\ufffd" * (match.end() - match.start())


def size(text: str) -> int:
    """Count the bytes of *text* in UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def head(text: str, limit: int) -> str:
    """Return the longest beginning of a clean *text* that fits in *limit* bytes."""
    if text.isascii():
        return text[:limit]
    return text[:limit].encode()[:limit].decode("utf-8", "ignore")


def without_half(text: str) -> str:
    """Return the masked beginning of a longer text without its end, where half a secret may be."""
    return text if text.endswith(REDACTED) else text[:-MARGIN]


def cut(text: str, limit: int, total: int) -> str:
    """Return the beginning of *text* and a marker that tells *total*, in *limit* bytes."""
    marker = f"… [cut, {total} bytes]"
    room = limit - size(marker)
    return head(text, room) + marker if room > 0 else head(text, max(limit, 0))


def hints(text: str) -> bool:
    """Tell whether *text*, or JSON made of it, may hold what `mask` masks; cheap, errs to yes."""
    return (
        "eyJ" in text
        or ("://" in text and "@" in text)
        or "earer" in text
        or "EARER" in text
        or "-----BEGIN" in text
        or "AKIA" in text
        or "ASIA" in text
    )


def mask(text: str) -> str:
    """Return *text* without the secrets that show by their shape."""
    if not hints(text):
        return text
    text = _PEM.sub(REDACTED, text)
    text = _hide_after(_URL_PASSWORD, text)
    text = _hide_after(_BEARER, text)
    text = _JWT.sub(REDACTED, text)
    return _AWS.sub(REDACTED, text)


def _hide_after(pattern: re.Pattern[str], text: str) -> str:
    """Mask what *pattern* finds after its group; a template for `sub` takes seven times as long."""
    parts: list[str] = pattern.split(text)
    parts[1::2] = [start + REDACTED for start in parts[1::2]]
    return "".join(parts)


def type_name(kind: type) -> str:
    """Return the qualified name of a class, at most 200 characters; builtins without a module."""
    try:
        module, name = _module_of(kind), _qualname_of(kind)
        full = name if module == "builtins" or type(module) is not str else f"{module}.{name}"
    except BaseException:  # a class may hold any object as its module: whatever its == does
        full = "unknown"
    full = clean(full)
    return full if len(full) <= 200 else full[:199] + "…"


class Redactor:
    """Knows which names are secret, and masks secrets in text.

    Args:
        redact: More names. Case and separators do not matter; with a ``*`` it is a glob; a
            compiled pattern is searched for in the name as it is.
    """

    __slots__ = ("_globs", "_names", "_patterns", "_rules", "_secret", "safe")

    def __init__(self, redact: Iterable[str | re.Pattern[str]] = ()) -> None:
        rules = list(redact)
        words = [rule for rule in rules if isinstance(rule, str)]
        self._patterns = [rule for rule in rules if isinstance(rule, re.Pattern)]
        self._names = frozenset(_normal(word) for word in words if "*" not in word)
        self._globs = [
            re.compile(".*".join(re.escape(_normal(part)) for part in word.split("*")), re.DOTALL)
            for word in words
            if "*" in word
        ]
        self._rules = bool(rules)
        self._secret: set[str] = set()
        self.safe: set[str] = set()
        """Names known to be no secrets; `is_secret` fills it."""

    def is_secret(self, name: str) -> bool:
        """Tell whether what stands under *name* must not be stored."""
        if name in self.safe:
            return False
        if name in self._secret:
            return True
        secret = self._decide(name)
        known = self._secret if secret else self.safe
        if len(known) >= _NAMES_KEPT:
            known.clear()
        if len(name) <= _NAME_LENGTH:
            known.add(name)
        return secret

    def are_plain(self, names: list[str]) -> bool:
        """Tell quickly whether many names are neither secret nor odd; errs to no."""
        text = "\n".join(names)
        if self._rules or not text.isascii() or "\0" in text or hints(text):
            return False
        bare = text.translate(_ASCII_SEPARATORS_IN_LINES).lower().split("\n")
        if len(bare) != len(names):
            return False
        plain = not any(
            name.endswith((*_ENDINGS, "ssn")) or name in _WHOLE
            for name in {name.rstrip(_DIGITS) for name in bare}
            if name[-3:] in _LAST
        )
        if plain and len(self.safe) + len(names) <= _NAMES_KEPT and len(max(names, key=len)) <= 64:
            self.safe.update(names)
        return plain

    def quoted(self, names: list[Any]) -> dict[str, tuple[str, bool]]:
        """Return the JSON of many keys, and that they are no secrets; of none if any is odd."""
        if set(map(type, names)) != {str} or len(max(names, key=len)) > KEY_LENGTH:
            return {}
        return {name: (f"{quote(name)}:", False) for name in names} if self.are_plain(names) else {}

    def _decide(self, name: str) -> bool:
        bare = _normal(name[-_TAIL_LENGTH:]).rstrip(_DIGITS)
        # Three letters settle it for nearly all names.
        if bare[-3:] in _LAST and (
            bare.endswith(_ENDINGS) or bare in _WHOLE or _SSN.search(name) is not None
        ):
            return True
        return self._rules and self._is_named(name[:_RULE_LENGTH])

    def _is_named(self, name: str) -> bool:
        normal = _normal(name)
        if normal in self._names or any(glob.fullmatch(normal) for glob in self._globs):
            return True
        return any(pattern.search(name) for pattern in self._patterns)

    def text(self, value: str, limit: int) -> str:
        """Return *value* masked, also behind secret names, cleaned, within *limit* bytes."""
        return self._bounded(value, limit, "=:")

    def named(self, value: str, limit: int) -> str:
        """Return a name masked, cleaned, within *limit* bytes; a colon in it parts nothing."""
        return self._bounded(value, limit, "=")

    def _bounded(self, value: str, limit: int, signs: str) -> str:
        value = str.__str__(value)
        window = value[: limit + MARGIN]
        whole = len(window) == len(value)
        text = self._pairs(mask(clean(window)), _VALUE, signs)
        if whole and size(text) <= limit:
            return text
        if not whole:
            text = without_half(text)
        return cut(text, limit, size(value) if whole or value.isascii() else len(value))

    def pairs(self, text: str) -> str:
        """Return *text* with what follows secret names masked."""
        return self._pairs(text, _VALUE)

    def tells(self, text: str) -> bool:
        """Tell whether a text in *text*, JSON, holds what `pairs` masks; cheap, errs to yes."""
        has_flag = "-" in text and any(dash in text for dash in _DASHES)
        if has_flag and any(map(self.is_secret, set(_JSON_FLAG.findall(text)))):
            return True
        if "=" not in text and '\\"' not in text and ":" not in text.replace('":', ""):
            return False
        names = set(_JSON_NAME.findall(text))
        return any(
            self.is_secret(name) or (name[0] in "nrt" and self.is_secret(name[1:]))
            for name in names
        )

    def code(self, line: str) -> str:
        """Return a line of source code with secrets masked where they are literals."""
        return self._pairs(mask(clean(line)), _LITERAL)

    def _pairs(self, text: str, values: re.Pattern[str], signs: str = "=:") -> str:
        if "-" in text:
            text = self._hidden(text, _FLAG, _WORD)
        if "=" not in text and (signs == "=" or ":" not in text):
            return text
        return self._hidden(text, _NAME if signs == "=:" else _EQUAL, values)

    def _hidden(self, text: str, names: re.Pattern[str], values: re.Pattern[str]) -> str:
        if not any(map(self.is_secret, set(names.findall(text)))):
            return text
        parts: list[str] = []
        done = end = 0
        for _ in range(_MAX_PAIRS):
            match = names.search(text, end)
            if match is None:
                return "".join([*parts, text[done:]]) if parts else text
            end = match.end()
            if self.is_secret(match[1]):
                cookie = values is _VALUE and match[1][-6:].lower() == "cookie"
                value = (_COOKIE if cookie else values).match(text, end)
                if value is not None:
                    parts += (text[done:end], _quoted(value[0]))
                    end = done = value.end()
        # Nothing readable has so many: what was not examined is not kept.
        return "".join([*parts, text[done:end], "…"])


def _quoted(value: str) -> str:
    quote = value[:2] if value[0] == "\\" else value[0]
    return f"{quote}{REDACTED}{quote}" if quote[-1] in "\"'" else REDACTED


def _normal(name: str) -> str:
    if name.isascii():
        return name.translate(_ASCII_SEPARATORS).lower()
    return _SEPARATORS.sub("", name).casefold()


def encode_task_id(task_id: object) -> str:
    """Return the text under which a task id is stored and looked up.

    NUL, ``%`` and lone surrogates become ``%00``, ``%25`` and ``%uDC80``. Over 255 characters
    it is the first 190, ``~`` and the SHA-256 of the whole id, over 2**19 of its length and ends.

    Args:
        task_id: Usually text; anything else is taken by its ``str()``.
    """
    text = task_id if type(task_id) is str else _as_text(task_id)
    escaped = _ID_UNSAFE.sub(_escape, text[: _ID_LENGTH + 1])
    if len(escaped) <= _ID_LENGTH:
        return escaped
    if len(text) > 2 * _ID_END:  # hashing a hundred megabytes would take long
        text = f"{text[:_ID_END]}{len(text)}{text[-_ID_END:]}"
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{escaped[:_ID_HEAD]}~{digest}"


def is_shortened(stored: str) -> bool:
    """Whether a stored task id ends with a digest: nobody can tell what it was."""
    return _ID_DIGEST.fullmatch(stored, _ID_HEAD) is not None


def _as_text(value: object) -> str:
    kind = type(value)
    try:
        home = str.partition(_module_of(kind), ".")[0]
        holds = issubclass(kind, _HOLDERS) or home in sys.stdlib_module_names
        if holds and kind not in _IDS:
            return f"<{type_name(kind)}>"  # nobody's id, and str() of a list may take minutes
        # A subclass of str goes by its characters, whatever its __str__ says.
        text: Any = value if issubclass(kind, str) else str(value)
        return str.__str__(text)
    except BaseException:  # a foreign __str__ may raise anything
        return f"<{type_name(kind)}>"


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"%u{code:04X}" if code > 0xFF else f"%{code:02X}"
