"""Names and shapes of secrets."""

from __future__ import annotations

import re
import time

import pytest

from aiotrack.encode import Encoder
from aiotrack.encode.redact import Redactor, mask

ENCODER = Encoder()
WHOLE = {"auth", "pass"}  # too common at the end of other words
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dBjftJeZ4CVPmB92K27uhbUJU1p1r"


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "passwd",
        "pwd",
        "secret",
        "token",
        "access_token",
        "refresh_token",
        "authorization",
        "api_key",
        "apikey",
        "private_key",
        "client_secret",
        "credential",
        "credentials",
        "cookie",
        "set_cookie",
        "session_key",
        "x_api_key",
        "auth_token",
        "secret_key",
        "passphrase",
        "card_number",
        "cvv",
        "ssn",
        "auth",
        "pass",
        "API_KEY",
        "api-key",
        "apiKey",
        "ApiKey",
        "X-Api-Key",
        "db_password",
        "githubToken",
        "github.token",
        "PASSWORD",
        "passWord",
        "password2",
        "Set-Cookie",
        "aws_secret_access_key",
        "user_ssn",
        "userSSN",
        "Proxy-Authorization",
        "csrf_token",
        "p-a-s-s-w-o-r-d",
        "spring.datasource.password",
        "dbpassword",
    ],
)
def test_a_name_that_ends_with_a_secret_word_is_secret(name: str):
    """Case and separators do not matter, nor what stands before."""
    assert Redactor().is_secret(name)
    assert name in WHOLE or Redactor().is_secret("a_long_prefix_" * 50 + "_" + name)


@pytest.mark.parametrize(
    "name",
    [
        "tokens_used",
        "token_count",
        "max_tokens",
        "secretary",
        "author",
        "authority",
        "compass",
        "bypass",
        "class_n",
        "process_n",
        "session",
        "user_id",
        "name",
        "key",
        "keyboard",
        "monkey",
        "cookies_accepted",
        "password_policy",
        "secret_santa_list",
        "passenger",
        "oauth",
        "authorized",
        "tokenizer",
        "business_name",
        "x1",
        "_",
        "-",
        "é",
        "名前",
    ],
)
def test_an_innocent_name_is_not_secret(name: str):
    """A number of tokens is no token."""
    assert not Redactor().is_secret(name)


def test_the_empty_name_is_not_secret():
    """{"": 1} is legal JSON."""
    assert not Redactor().is_secret("")


def test_own_names_match_whole_whatever_their_spelling():
    """A plain string is a name, not a part of one."""
    redactor = Redactor(["Card-Holder", "пароль", "line2"])

    assert redactor.is_secret("cardHolder")
    assert redactor.is_secret("ПАРОЛЬ")
    assert redactor.is_secret("line_2")
    assert not redactor.is_secret("card_holder_name")
    assert not redactor.is_secret("line")


def test_a_star_makes_a_glob():
    """Other characters of patterns have no meaning."""
    redactor = Redactor(["card*", "*_no", "a.b*c"])

    assert redactor.is_secret("card_holder")
    assert redactor.is_secret("account-no")
    assert redactor.is_secret("a_b_x_c")
    assert not redactor.is_secret("discard")
    assert not redactor.is_secret("axbc_d")


def test_a_pattern_is_searched_for_in_the_name_as_it_is():
    """With its own flags."""
    redactor = Redactor([re.compile(r"^X-\d"), re.compile("(?i)iban")])

    assert redactor.is_secret("X-1")
    assert redactor.is_secret("myIBANs")
    assert not redactor.is_secret("x-1")


def test_what_is_remembered_of_names_is_bounded():
    """Identifiers as keys must not fill the memory."""
    redactor = Redactor()
    for n in range(10_000):
        redactor.is_secret(f"name {n}")
        redactor.is_secret(f"{n} password")

    assert len(redactor.safe) <= 4096
    assert redactor.is_secret("9999 password")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"got {JWT}.", "got [redacted]"),
        (f"got\n{JWT} there", "got\n[redacted] there"),
        ("Authorization: Bearer abc.def-123", "Authorization: Bearer [redacted]"),
        ("BEARER abc123", "BEARER [redacted]"),
        ("the bearer authentication scheme", "the bearer authentication scheme"),
        ("AKIAIOSFODNN7EXAMPLE", "[redacted]"),
        ("key ASIAIOSFODNN7EXAMPLE.", "key [redacted]."),
        ("EURASIAN", "EURASIAN"),
        ("postgres://u:p@host/db", "postgres://u:[redacted]@host/db"),
        ("redis://:p@host", "redis://:[redacted]@host"),
        ("amqp://u:p@ss@host:1/", "amqp://u:[redacted]@host:1/"),
        ("https://host:8080/a?b=c@d", "https://host:8080/a?b=c@d"),
        ("ssh://git@host/x", "ssh://git@host/x"),
        (
            "x -----BEGIN RSA PRIVATE KEY-----\nMII\n-----END RSA PRIVATE KEY----- y",
            "x [redacted] y",
        ),
        ("-----BEGIN PRIVATE KEY-----\nMII", "[redacted]"),
        ("-----BEGIN CERTIFICATE-----\nMII", "-----BEGIN CERTIFICATE-----\nMII"),
    ],
)
def test_secrets_are_masked_by_their_shape(text: str, expected: str):
    """What looks like a credential goes, what stands around it stays."""
    assert expected == mask(text)
    assert expected == mask(mask(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("password=hunter2", "password=[redacted]"),
        ("password = hunter2, user = u", "password = [redacted], user = u"),
        ("{'db_password': 'hun ter2', 'a': 1}", "{'db_password': '[redacted]', 'a': 1}"),
        ('{"apiKey": "x\\"y", "a": 1}', '{"apiKey": "[redacted]", "a": 1}'),
        ('{\\"token\\": \\"x\\", \\"a\\": 1}', '{\\"token\\": \\"[redacted]\\", \\"a\\": 1}'),
        ("GET https://h/p?token=abc&x=1", "GET https://h/p?token=[redacted]&x=1"),
        ("Authorization: Basic dXNlcjpw", "Authorization: [redacted]"),
        ("Cookie: a=b; c=d\nHost: h", "Cookie: [redacted]\nHost: h"),
        ("password=1234", "password=[redacted]"),
        ("password=('a', 'b') x", "password=[redacted] x"),
        ("tokens_used=5, max_tokens: 7", "tokens_used=5, max_tokens: 7"),
        ("no secret here", "no secret here"),
        ("password=", "password="),
        ("a\0b \ud800", "a\u2400b \ufffd"),
    ],
)
def test_a_message_loses_what_stands_behind_secret_names(text: str, expected: str):
    """Assignments, JSON, reprs, headers and query strings."""
    assert expected == ENCODER.text(text)
    assert expected == ENCODER.text(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Command '['x', '--api-key', 'K9']' failed",
            "Command '['x', '--api-key', '[redacted]']' failed",
        ),
        ('["--api-key","K9"]', '["--api-key","[redacted]"]'),
        ('[\\"--token\\", \\"K9\\"]', '[\\"--token\\", \\"[redacted]\\"]'),
        ("['--token',\n  'K9']", "['--token',\n  '[redacted]']"),
        ("[b'--pass', b'K9']", "[b'--pass', [redacted]]"),
        ("x --db-password K9 --user bob", "x --db-password [redacted] --user bob"),
        ("x -password K9,K9;K9", "x -password [redacted]"),
        ("x --password 'K9 K9' y", "x --password '[redacted]' y"),
        ("x --password \\\n  K9 y", "x --password \\\n  [redacted] y"),
        ("x --authorization Basic K9", "x --authorization [redacted]"),
        ("Command 'x --token K9' failed", "Command 'x --token [redacted]' failed"),
        ("x --password = K9", "x --password = [redacted]"),
        ("x --password=K9,K9 --token -K9x", "x --password=[redacted] --token [redacted]"),
    ],
)
def test_the_word_after_a_secret_flag_is_masked(text: str, expected: str):
    """A command line is told as a list, as JSON or as the shell has it."""
    assert expected == ENCODER.text(text)
    assert expected == ENCODER.text(expected)
    assert "K9" not in ENCODER.code(text.replace(" = ", "="))
    assert "K9" not in ENCODER.encode([text, "\n" + text]).text


@pytest.mark.parametrize(
    "text",
    [
        "the --password flag is missing",
        "missing --password, --token",
        "option '--password' requires an argument",
        "--password --user bob",
        "add('--password', '-p', dest='x')",
        "--max-tokens 7 --verbose yes",
        "user-password prose",
        "no --password\nat all",
    ],
)
def test_prose_about_a_flag_stays(text: str):
    """What tells somebody to give a password holds none."""
    assert text == ENCODER.text(text)
    assert "shop.token:x" == ENCODER.name("shop.token:x")


def test_own_names_count_in_messages():
    """The names of `redact` hold in every text."""
    assert "pan=[redacted] x=1" == Encoder(redact=["pan"]).text("pan=4111 x=1")
    assert "--pan [redacted] x=1" == Encoder(redact=["pan"]).text("--pan 4111 x=1")


def test_a_line_of_code_loses_only_literals():
    """`token = get()` is code, `token = "abc"` is a secret."""
    assert "token = get()" == ENCODER.code("token = get()")
    assert 'token = "[redacted]"' == ENCODER.code('token = "abc"')
    assert 'system("x --token=[redacted]")' == ENCODER.code('system("x --token=abc")')


def test_a_message_is_cut_to_its_limit_in_bytes():
    """It keeps its beginning and tells its size."""
    text = ENCODER.text("é" * 100, limit=50)

    assert "… [cut, 200 bytes]" == text.lstrip("é")
    assert len(text.encode()) <= 50
    assert "short" == ENCODER.text("short", limit=5)
    assert "sho" == ENCODER.text("shorter", limit=3)
    assert "" == ENCODER.text("shorter", limit=0)


def test_a_secret_across_the_cut_is_not_left_in_half():
    """Neither at the cut nor where reading stops."""
    for before in range(8100, 8200, 7):
        assert "hunter" not in ENCODER.text("x" * before + " ://u:hunter2@h " + "y" * 9000)
    for before in range(10_200, 10_250, 3):
        pem = "-----BEGIN PRIVATE KEY-----" + "a" * before + "-----END PRIVATE KEY-----"
        assert "[redacted]" in ENCODER.text(pem + " ://u:hunter2@h" * 200)
        assert "hunter" not in ENCODER.text(pem + " ://u:hunter2@h" * 200)


def test_a_subclass_of_str_is_taken_by_its_characters():
    """Whatever its methods do."""

    class Evil(str):
        __slots__ = ()

        def __str__(self) -> str:
            raise ValueError

    assert "abc" == ENCODER.text(Evil("abc"))


@pytest.mark.parametrize(
    "piece",
    [
        "a=",
        "a: ",
        "eyJ-",
        "eyJa.",
        "://a:",
        "://a:b@",
        "bearer ",
        "-----BEGIN PRIVATE KEY",
        "AKIA",
        "x",
        '\\"',
        "password='",
        "password=[",
        "token=bearer ",
        "cookie: ",
        "--password ",
        "'-password'",
        "--token x ",
        "--token \\\n",
        "--token=x ",
        "-a-",
    ],
)
def test_masking_takes_linear_time(piece: str):
    """A quadratic pattern would take minutes for a megabyte of its own beginnings."""
    begin = time.perf_counter()
    ENCODER.text(piece * (1_000_000 // len(piece)), limit=65_536)
    ENCODER.encode(piece * (16_000 // len(piece)))

    assert time.perf_counter() - begin < 5.0
