"""``/settings/``: what holds, for whom, and which layer says so."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Path, Query
from pydantic import BaseModel, ConfigDict, Field

from aiotrack.api.access import Scope
from aiotrack.api.bodies import Json
from aiotrack.api.fields import Text
from aiotrack.api.problems import Refused
from aiotrack.api.routes import Routes
from aiotrack.api.site import Here, Now
from aiotrack.row_settings import MAX_USER, Explanation, RowSettings, deed_of
from aiotrack.settings import GLOBAL, ROW_KEYS, USER, settable

routes = Routes("settings", is_closed=True)


class SettingAnswer(BaseModel):
    """A setting, and why it is what it is."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "key": "retention_days",
                    "value": 7,
                    "layer": "user",
                    "source": None,
                    "layers": {"user": 7, "global": None, "settings": 60, "default": 30},
                    "is_settable": True,
                }
            ]
        }
    )

    key: str
    value: Any = Field(description="What holds; passwords in URLs are left out.")
    layer: str = Field(description="Who won: `user`, `global`, `settings` or `default`.")
    source: str | None = Field(description="Of `settings`: `keyword` or `environment`.")
    layers: dict[str, Any] = Field(description="What each layer says; null: nothing.")
    is_settable: bool = Field(description="Whether it can be set here, while the product runs.")


class SettingsAnswer(BaseModel):
    """Every setting."""

    items: list[SettingAnswer]


class NewSetting(BaseModel):
    """A value, and for whom."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"value": 7, "scope": "user", "user": "42"}]},
    )

    value: float = Field(
        strict=True, allow_inf_nan=False, description="Days or minutes; 0: at once, -1: never."
    )
    scope: str | None = Field(
        None,
        pattern=f"^({GLOBAL}|{USER})$",
        description="`global` or `user`; default: `user` where *user* is given.",
    )
    user: Text | None = Field(None, min_length=1, max_length=MAX_USER)


Key = Annotated[str, Path(max_length=64, description=f"One of: {', '.join(ROW_KEYS)}.")]
User = Annotated[
    Text | None, Query(min_length=1, max_length=MAX_USER, description="For whom; as `created_by`.")
]


@routes.add("GET", "/settings/", Scope.ADMIN, answer=SettingsAnswer)
async def list_settings(here: Now, user: User = None) -> Json:
    """Every setting of this process, what holds now, and which layer says so."""
    settings = here.tracker.settings
    items = [_shown(await settings.explain(key, user)) for key in settable()]
    return Json({"items": items})


@routes.add("GET", "/settings/{key}", Scope.ADMIN, answer=SettingAnswer)
async def get_setting(
    here: Now,
    key: Annotated[str, Path(max_length=64, description="As `/settings/` lists them.")],
    user: User = None,
) -> Json:
    """What holds now, and which layer says so."""
    return Json(_shown(await _settings(here, key).explain(key, user)))


@routes.add("PUT", "/settings/{key}", Scope.ADMIN, answer=SettingAnswer)
async def put_setting(here: Now, key: Key, body: NewSetting) -> Json:
    """Make a setting, for all processes and from now on."""
    settings = _settings(here, key)
    before = await settings.explain(key, body.user)
    await settings.set(key, body.value, scope=body.scope, user=body.user)
    after = await settings.explain(key, body.user)
    deed = deed_of(body.user, before, after)
    await here.tracker.audit.append("setting.set", by=here.caller.actor, **deed)
    return Json(_shown(after))


@routes.add("DELETE", "/settings/{key}", Scope.ADMIN, answer=SettingAnswer)
async def delete_setting(
    here: Now,
    key: Key,
    user: User = None,
) -> Json:
    """Take a setting back, of all or of one user; harmless when there was none."""
    settings = _settings(here, key)
    before = await settings.explain(key, user)
    gone = await settings.unset(key, user=user)
    after = await settings.explain(key, user)
    if gone:
        deed = deed_of(user, before, after)
        await here.tracker.audit.append("setting.unset", by=here.caller.actor, **deed)
    return Json(_shown(after))


def _settings(here: Here, key: str) -> RowSettings:
    if key not in settable():
        raise Refused(404, "setting-not-found", "there is no such setting: GET /settings/")
    return here.tracker.settings


def _shown(told: Explanation) -> dict[str, Any]:
    value, layers = _plain(told.value), {name: _plain(one) for name, one in told.layers.items()}
    return {
        "key": told.key,
        "value": value,
        "layer": told.layer,
        "source": told.source,
        "layers": layers,
        "is_settable": told.key in ROW_KEYS,
    }


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
