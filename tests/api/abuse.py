"""What no client in its right mind would ask, and where: for R37's tests and its measurement."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from random import Random
from urllib.parse import quote

PIECES = (
    *("'", '"', "`", ";", "--", "/*", "*/", "\\", "%", "_", "%%", "\x00", "\ud800", "\x1b", "\n"),
    *("OR 1=1", "UNION SELECT NULL", "DROP TABLE aiotrack_executions", "pg_sleep(9)", "$1", ":a"),
    *(
        "{{7*7}}",
        "${jndi:ldap://x}",
        "<script>alert(1)</script>",
        "../../etc/passwd",
        "%00",
        "%n%s",
    ),
    *("(a+)+$", "[[:alpha:]]*", "$.a[*]?(@ like_regex '.*')", "a,b", "{}", "[]", "null", "NaN"),
    *("1e999", "9" * 400, "-0", "0x10", "\uff11", "\u202e", "\U0010ffff", "İ", "ﷺ" * 30, "a" * 999),
)

TEXTS = (
    *("module", "task_name", "created_by", "worker", "error_class", "schedule_id", "text"),
    *("status", "config_id", "since", "until", "start_date", "end_date", "after", "order"),
    *("my_tasks", "page", "page_size", "limit", "count", "metadata.a", "metadata."),
)

LISTS = (
    *("/executions/?{name}={told}", "/executions/stats/?{name}={told}", "/configs?{name}={told}"),
    *("/audit/?{name}={told}", "/locks/?task_id={told}", "/configs?text={told}&name={told}"),
    "/audit/?actor={told}&target={told}",
)
PATHS = (
    *("/executions/by-task-id/{told}/", "/executions/{told}/logs/", "/configs/{told}"),
    *("/executions/status/?task_id={told}&{told}=1", "/tasks/{told}", "/configs/{told}/stats/"),
    "/executions/by-task-id/{told}/logs/?level={told}",
)


def strings(number: int) -> Iterator[str]:
    """Give injection strings: every piece, every pair of some, and longer ones."""
    random = Random(37)
    yield from PIECES
    pairs = list(product(PIECES, repeat=2))
    for one, other in random.sample(pairs, 300):
        yield one + other
    for _ in range(number - len(PIECES) - 300):
        yield " ".join(random.choices(PIECES, k=random.randint(3, 6)))


def encoded(text: str) -> str:
    """Give a text as it stands in a URL, also one that is no Unicode."""
    return quote(text.encode("utf-8", "surrogatepass"), safe="")
