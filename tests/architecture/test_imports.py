"""What an import costs: the optional and the heavy packages stay out until they are used."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"alembic", "redis", "sqlalchemy"}
OPTIONAL = {"fastapi", "httpx", "prometheus_client", "rich", "starlette", "typer", "uvicorn"}
DRIVERS = {"aiosqlite", "asyncpg"}

LISTING = "import sys; print(*{name.partition('.')[0] for name in sys.modules})"


def loaded_by(*statements: str) -> set[str]:
    """Run *statements* in a fresh interpreter; give the top-level modules that it has then."""
    program = "\n".join([*statements, LISTING])
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=50
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import aiotrack",
        "from aiotrack import Tracker, TrackerMiddleware, tracking",
        "import aiotrack.middleware",
        "from aiotrack.errors import MissingExtra",
        "import aiotrack.testing",
    ],
)
def test_an_import_loads_no_heavy_package(statement: str) -> None:
    """Importing aiotrack loads no SQLAlchemy, redis, Alembic or extra beside what taskiq loads."""
    before = loaded_by("import taskiq")
    added = loaded_by("import taskiq", statement) - before

    assert set() == added & (HEAVY | OPTIONAL | DRIVERS)


def test_a_tracker_that_is_only_made_loads_no_database() -> None:
    """Making a tracker and its middleware touches no database package: web processes fork later."""
    added = loaded_by(
        "import taskiq",
        "from aiotrack import Tracker, TrackerMiddleware",
        "TrackerMiddleware(Tracker('sqlite+aiosqlite:///never.db'))",
    )

    assert set() == added & (HEAVY | DRIVERS)


def test_the_package_import_alone_is_free() -> None:
    """`import aiotrack` loads not even taskiq: names are looked up on use."""
    added = loaded_by("import aiotrack")

    assert set() == added & {"pydantic", "taskiq"}
