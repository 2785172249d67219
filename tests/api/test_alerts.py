"""``/alerts/``."""

from __future__ import annotations

from datetime import UTC, datetime

from aiotrack import Tracker
from aiotrack.api.alerts import AlertsAnswer
from tests.api.conftest import Clients


async def test_what_goes_on(tracker: Tracker, api: Clients) -> None:
    """As the document says."""
    async with api() as client:
        assert {"items": []} == (await client.get("/alerts/")).json()
        now = datetime.now(UTC)
        for number in range(20):
            facts = {"status": "FAILURE", "created_at": now, "started_at": now, "finished_at": now}
            await tracker.register(str(number), "shop.pay", **facts)
        await tracker.alerts.check()
        found = (await client.get("/alerts")).json()

    AlertsAnswer.model_validate(found)
    assert [("failure-rate", "shop.pay", None)] == [
        (one["rule"], one["subject"], one["ended_at"]) for one in found["items"]
    ]
