"""Where what a read may take is no part of the contract."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from aiotrack.repository import limited


@pytest.fixture(scope="module")
def patience() -> Iterator[None]:
    """Let reads take twenty seconds: a busy machine stands still for more than two."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limited, "LIMIT", 20.0)
        yield
