"""Settings in rows: who wins, who says what, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from aiotrack import InvalidSetting, Tracker
from aiotrack.settings import Settings


async def test_a_user_wins_over_all_over_the_environment_over_the_default(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each layer shows itself as soon as those above it are taken away."""
    monkeypatch.setenv("AIOTRACK_RETENTION_DAYS", "20")
    seen: list[tuple[Any, str, str | None]] = []

    async with Tracker(database_url) as tracker:
        settings = tracker.settings

        async def look() -> None:
            told = await settings.explain("retention_days", user=42)
            assert told.value == await settings.get("retention_days", user="42")
            seen.append((told.value, told.layer, told.source))

        await settings.set("retention_days", 10)
        await settings.set("retention_days", 0, scope="user", user="42")
        await look()
        layers = (await settings.explain("retention_days", user="42")).layers
        assert 0 == await settings.get("retention_days", scope="user", user="42")
        assert 10 == await settings.get("retention_days", scope="global")
        assert 0 == (await settings.all(scope="user", user=42))["retention_days"]
        others = await settings.get("retention_days", user="43")
        everybody = await settings.all()
        assert await settings.unset("retention_days", scope="user", user=42)
        await look()
        assert await settings.unset("retention_days")
        assert not await settings.unset("retention_days")
        await look()

    monkeypatch.delenv("AIOTRACK_RETENTION_DAYS")
    async with Tracker(database_url) as tracker:
        settings = tracker.settings
        await look()

    assert [
        (0, "user", None),
        (10, "global", None),
        (20, "settings", "environment"),
        (30, "default", None),
    ] == seen
    assert {"user": 0, "global": 10, "settings": 20, "default": 30} == dict(layers)
    assert 10 == others
    assert {"retention_days": 10, "timeout_minutes": 10} == everybody


async def test_a_setting_is_replaced_and_listed(tracker: Tracker) -> None:
    """The last one holds; -1 and fractions are kept; `rows` shows all of them."""
    before = datetime.now(UTC)
    await tracker.settings.set("timeout_minutes", 5, user="b")
    await tracker.settings.set("timeout_minutes", 0.5, user="b")
    await tracker.settings.set("retention_days", -1, scope="global")
    rows = await tracker.settings.rows()

    assert [
        ("global", None, "retention_days", -1),
        ("user", "b", "timeout_minutes", 0.5),
    ] == [(one.scope, one.user, one.key, one.value) for one in rows]
    assert isinstance(rows[0].value, int)
    assert abs((rows[0].set_at - before).total_seconds()) < 60
    assert "retention_days = -1, by global" == str(
        await tracker.settings.explain("retention_days", user="b")
    )


@pytest.mark.parametrize(
    ("key", "value", "scope", "user", "fault"),
    [
        ("retention", 7, None, None, "unknown setting; known are database_url"),
        ("logs", 7, None, None, "is set at the start only; rows may set retention_days and"),
        ("retention_days", 7, "team", None, "'team' is no scope: use 'global' or 'user'"),
        ("retention_days", 7, "global", "42", "leave user= out"),
        ("retention_days", 7, "user", None, "needs user="),
        ("retention_days", 7, "user", "", "1 to 255 characters"),
        ("retention_days", 7, "user", 1.5, "1.5 is no text or number"),
        ("retention_days", "7", None, None, "'7' is not a number"),
        ("retention_days", True, None, None, "True is not a number"),
        ("retention_days", -2, None, None, "-2 is outside 0 to 36500, or -1"),
        ("timeout_minutes", float("nan"), None, None, "nan is outside"),
        ("timeout_minutes", float("inf"), None, None, "inf is outside"),
    ],
)
async def test_what_cannot_be_set_is_refused_whole(
    tracker: Tracker, key: str, value: Any, scope: str | None, user: Any, fault: str
) -> None:
    """The error names what is wrong, and nothing is stored."""
    with pytest.raises(InvalidSetting) as told:
        await tracker.settings.set(key, value, scope=scope, user=user)

    assert fault in str(told.value)
    assert [] == await tracker.settings.rows()


async def test_every_setting_can_be_explained(database_url: str) -> None:
    """Those that rows cannot set, too; without passwords, and an unknown one is an error."""
    tracker = Tracker(database_url, settings={"redis_url": "redis://me:secret@host:6379/0"})
    async with tracker:
        url = await tracker.settings.explain("redis_url")
        level = await tracker.settings.explain("log_level")
        with pytest.raises(InvalidSetting, match="unknown"):
            await tracker.settings.get("retention")
        with pytest.raises(InvalidSetting, match="unknown"):
            await tracker.settings.unset("retention")

    assert ("...@host:6379/0", "settings", "keyword") == (url.value, url.layer, url.source)
    assert ("INFO", "default", None) == (level.value, level.layer, level.source)


def test_settings_know_where_they_come_from() -> None:
    """A keyword that says what the default says is a keyword all the same."""
    environment = {"AIOTRACK_TIMEOUT_MINUTES": "10", "AIOTRACK_RETENTION_DAYS": "3"}
    loaded = Settings.load({"retention_days": 30}, environment)
    by_hand = Settings(retention_days=3)

    assert "environment" == loaded.source_of("timeout_minutes")
    assert "keyword" == loaded.source_of("retention_days")
    assert "default" == loaded.source_of("logs")
    assert "keyword" == by_hand.source_of("retention_days")
    assert "default" == by_hand.source_of("timeout_minutes")
    with pytest.raises(InvalidSetting):
        loaded.source_of("nonsense")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("CLEANUP_ENABLED", "perhaps"),
        ("CLEANUP_INTERVAL_HOURS", "0"),
        ("RETENTION_DAYS", "-3"),
        ("RETENTION_DAYS", "many"),
        ("CLEANUP_ONLY_COMPLETED", "2"),
        ("MARK_TIMEOUT_ENABLED", "x"),
        ("TIMEOUT_MINUTES", "nan"),
        ("PENDING_TIMEOUT_MINUTES", "-2"),
        ("RETRY_MAX_RETRIES", "1.5"),
        ("RETRY_MAX_RETRIES", "-1"),
        ("RETRY_DELAY_SECONDS", "-1"),
        ("RETRY_BACKOFF", "0.5"),
        ("RETRY_JITTER", "maybe"),
        ("HEARTBEAT_SECONDS", "0"),
    ],
)
def test_a_bad_value_fails_at_the_start_and_names_its_key(
    name: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything runs."""
    monkeypatch.setenv(f"AIOTRACK_{name}", text)
    with pytest.raises(InvalidSetting) as told:
        Tracker("sqlite+aiosqlite://")

    assert name in str(told.value).upper()


def test_what_is_no_number_or_word_is_refused_as_a_keyword() -> None:
    """Types are looked at, not only ranges."""
    for key, value in {
        "retry_max_retries": 1.5,
        "cleanup_enabled": "no",
        "cleanup_crontab": 5,
        "retention_days": None,
    }.items():
        with pytest.raises(InvalidSetting, match=key):
            Settings(**{key: value})

    assert None is Settings(pending_timeout_minutes=None).pending_timeout_minutes
    assert -1 == Settings(pending_timeout_minutes=-1).pending_timeout_minutes


def test_the_defaults_of_the_contract() -> None:
    """What the specification says."""
    found = Settings()

    assert ("0 2 * * *", 24, 30, True) == (
        found.cleanup_crontab,
        found.cleanup_interval_hours,
        found.retention_days,
        found.cleanup_only_completed,
    )
    assert ("*/30 * * * *", 10, None) == (
        found.mark_timeout_crontab,
        found.timeout_minutes,
        found.pending_timeout_minutes,
    )
    assert (3, 5, 2.0, True, 5) == (
        found.retry_max_retries,
        found.retry_delay_seconds,
        found.retry_backoff,
        found.retry_jitter,
        found.heartbeat_seconds,
    )
