"""``/report/`` and ``/metrics``."""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha256

import pytest

from aiotrack import Tracker
from aiotrack.api.report import ReportAnswer
from tests.api.conftest import PREFIX, Clients, application


async def test_a_report(tracker: Tracker, api: Clients) -> None:
    """What the document says, of the stretch that was asked for."""
    for number in range(3):
        await tracker.register(str(number), "shop.bill", status="STARTED")
        await tracker.update(
            str(number), "FAILURE" if number else "SUCCESS", error="no" if number else None
        )
    async with api() as client:
        whole = (await client.get("/report/")).json()
        other = (await client.get("/report/?task_name=crm.sync")).json()
        past = (await client.get("/report/?since=2026-01-01&until=2026-01-31")).json()

    ReportAnswer.model_validate(whole)
    assert [("shop.bill", 3, 2)] == [
        (one["task_name"], one["now"]["total"], one["now"]["failure"]) for one in whole["tasks"]
    ]
    assert 0 == other["now"]["total"] == past["now"]["total"]
    assert "2026-01-01T00:00:00Z" == past["since"]


async def test_a_report_on_paper(tracker: Tracker, api: Clients) -> None:
    """What `aiotrack report` writes, of the right kind; names that are code stay names."""
    name = "<script>alert(1)</script>"
    await tracker.register("1", name, status="SUCCESS")
    async with api() as client:
        found = {
            form: await client.get(f"/report/?format={form}&since=2026-01-01&until=2090-01-01")
            for form in ("json", "md", "html", "csv")
        }
    told = {form: one.headers["content-type"].split(";")[0] for form, one in found.items()}
    policy = found["html"].headers["content-security-policy"]
    style = re.search("<style>(.*)</style>", found["html"].text, re.DOTALL)
    assert style is not None
    hashed = b64encode(sha256(style[1].encode()).digest()).decode()

    assert {
        "json": "application/json",
        "md": "text/markdown",
        "html": "text/html",
        "csv": "text/csv",
    } == told
    assert (
        'attachment; filename="aiotrack-2026-01-01-2090-01-01.csv"'
        == found["csv"].headers["content-disposition"]
    )
    assert "default-src 'none'" in policy
    assert f"style-src 'sha256-{hashed}'" in policy
    assert "'unsafe" not in policy
    assert "nosniff" == found["html"].headers["x-content-type-options"]
    assert name not in found["html"].text
    assert name not in found["md"].text
    assert f",{name},1,1,0," in found["csv"].text
    paths = application(tracker).openapi()["paths"]
    documented = paths[f"{PREFIX}/report/"]["get"]["responses"]["200"]["content"]
    assert set(told.values()) == set(documented)


@pytest.mark.parametrize(
    "query",
    [
        *("since=yesterday", "since=2026-02-01&until=2026-01-01", "form=pdf", "format=pdf"),
        *("since=0001-01-01", "module=" + "x" * 2000),
        *("until=0001-01-02", "since=0001-01-01&until=0001-01-02"),
        *("until=9999-12-31T23:59:59-01:00", "since=0001-01-01T00:00:00%2B01:00&until=0001-01-02"),
    ],
)
async def test_reports_that_are_none(api: Clients, query: str) -> None:
    """Each is a 422 that says why."""
    async with api() as client:
        answer = await client.get(f"/report/?{query}")
    assert 422 == answer.status_code, answer.text
    assert answer.json()["detail"]


async def test_metrics_are_text(api: Clients) -> None:
    """As Prometheus reads it."""
    async with api() as client:
        answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "# TYPE aiotrack_executions_open gauge" in answer.text
