"""What may be sent: the tasks of all brokers, their parameters, and what is wrong with arguments.

TaskIQ parses what fits an annotation and hands on what does not; here it is told before the send.
"""

from __future__ import annotations

import inspect
import json
import logging
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from aiotrack.labels import word
from aiotrack.model import TaskInfo

if TYPE_CHECKING:
    from pydantic import TypeAdapter
    from taskiq import AsyncBroker, AsyncTaskiqDecoratedTask

log = logging.getLogger(__name__)

_NAMED: Final = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_PLACED: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_MANY: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


_OF_KIQ: Final = "self"
"""What TaskIQ's ``kiq()`` calls its own first parameter: it takes no argument of that name."""


def tasks(brokers: Iterable[AsyncBroker]) -> list[TaskInfo]:
    """Give every task, by name; of one that several brokers know, the first broker's."""
    found: dict[str, TaskInfo] = {}
    for broker in brokers:
        for name, task in broker.get_all_tasks().items():
            found.setdefault(name, describe(broker, task))
    return [found[name] for name in sorted(found)]


def describe(broker: AsyncBroker, task: AsyncTaskiqDecoratedTask[Any, Any]) -> TaskInfo:
    """Tell what a task is and what it takes."""
    labels = task.labels
    queue = word(labels.get("queue")) or word(labels.get("queue_name"))
    return TaskInfo(
        name=task.task_name,
        queue=queue or getattr(broker, "queue_name", None),
        labels={name: _plain(value) for name, value in labels.items()},
        doc=inspect.getdoc(task.original_func),
        parameters=schema(task.original_func),
    )


def schema(function: Callable[..., Any]) -> dict[str, Any]:
    """Give the parameters of a task's function as JSON schema; dependencies are none."""
    parameters = _parameters(function)
    if parameters is None:
        return {"type": "object", "additionalProperties": True}
    hints = _hints(function)
    properties: dict[str, Any] = {}
    definitions: dict[str, Any] = {}
    required = []
    for name, parameter in parameters.items():
        if parameter.kind in _MANY:
            continue
        told = _schema_of(hints.get(name, Any))
        if any(definitions.get(key, one) != one for key, one in told.get("$defs", {}).items()):
            told = _schema_of(hints[name], f"#/properties/{name}/$defs/{{model}}")  # a namesake
        else:
            definitions |= told.pop("$defs", {})
        if parameter.default is inspect.Parameter.empty:
            required.append(name)
        else:
            told["default"] = _plain(parameter.default)
        properties[name] = told
    found: dict[str, Any] = {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": _takes_any(parameters),
    }
    return found | ({"$defs": definitions} if definitions else {})


def faults(
    function: Callable[..., Any], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
) -> list[str]:
    """Tell everything that is wrong with arguments: missing, unknown, twice, of a wrong type.

    Args:
        function: A task's.
        args: Positional arguments, as they are sent.
        kwargs: Keyword arguments.
    """
    parameters, given = _parameters(function), dict(kwargs or {})
    told = unsendable(given)
    if parameters is None:
        return told
    hints = _hints(function)
    places, takes_more = _places(function, parameters)
    if len(args) > len(places) and not takes_more:
        told.append(f"takes {len(places)} positional arguments, not {len(args)}")
    filled = dict(zip(places, args, strict=False))
    told += [f"{name} is given twice" for name in filled.keys() & given.keys()]
    unknown = [
        name
        for name in given
        if name != _OF_KIQ and (name not in parameters or parameters[name].kind not in _NAMED)
    ]
    if unknown and not _takes_any(parameters):
        known = ", ".join(name for name, one in parameters.items() if one.kind in _NAMED)
        told += [f"has no parameter {name!r}; known are: {known or 'none'}" for name in unknown]
    for name, parameter in parameters.items():
        if parameter.kind in _MANY:
            continue
        if name in filled or (name in given and parameter.kind in _NAMED):
            told += _misfit(name, hints.get(name, Any), filled.get(name, given.get(name)))
        elif parameter.default is inspect.Parameter.empty:
            told.append(f"{name} is missing")
    return told


def unsendable(kwargs: Mapping[str, Any]) -> list[str]:
    """Tell which keyword arguments TaskIQ takes for no task at all."""
    if _OF_KIQ not in kwargs:
        return []
    return [f"{_OF_KIQ!r} cannot be sent: TaskIQ keeps the name for itself; give it another one"]


def _parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter] | None:
    """Give what a sender may give: what TaskIQ resolves by itself is left out; None: unknown."""
    try:
        found = dict(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return None
    hints = _hints(function)
    return {name: one for name, one in found.items() if not _is_dependency(one, hints.get(name))}


def _places(
    function: Callable[..., Any], parameters: Mapping[str, inspect.Parameter]
) -> tuple[list[str], bool]:
    """Give what positional arguments fill, and whether any number of others may follow.

    TaskIQ gives dependencies by name: what is behind one is not reached by position.
    """
    places: list[str] = []
    for name, one in inspect.signature(function).parameters.items():
        if one.kind is inspect.Parameter.VAR_POSITIONAL:
            return places, True
        if one.kind not in _PLACED or name not in parameters:
            break
        places.append(name)
    return places, False


def _is_dependency(parameter: inspect.Parameter, hint: Any) -> bool:
    from taskiq_dependencies.dependency import Dependency

    told = [parameter.default, *getattr(hint, "__metadata__", ())]
    return any(isinstance(one, Dependency) or one is Dependency for one in told)


def _takes_any(parameters: Mapping[str, inspect.Parameter]) -> bool:
    return any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values())


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(inspect.unwrap(function), include_extras=True)
    except Exception as error:  # foreign code: an annotation may be anything
        log.debug("the annotations of %r cannot be read: %s", function, error)
        return {}


def _adapter(hint: Any) -> TypeAdapter[Any] | None:
    from pydantic import TypeAdapter  # it takes time to load

    if hint is Any:
        return None
    try:
        return TypeAdapter(hint)
    except Exception as error:  # a class that pydantic does not know
        log.debug("%r cannot be checked: %s", hint, error)
        return None


def _schema_of(hint: Any, place: str = "#/$defs/{model}") -> dict[str, Any]:
    adapter = _adapter(hint)
    try:
        return {} if adapter is None else adapter.json_schema(ref_template=place)
    except Exception as error:  # it has no schema, or no JSON
        log.debug("%r has no JSON schema: %s", hint, error)
        return {}


def _misfit(name: str, hint: Any, value: Any) -> list[str]:
    from pydantic import ValidationError

    adapter = _adapter(hint)
    if adapter is None or value is None:  # TaskIQ hands None on as it is
        return []
    try:
        adapter.validate_python(value)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        return [".".join(map(str, (name, *one["loc"]))) + f": {one['msg']}" for one in found]
    except Exception as error:  # the annotation's fault, not the value's
        log.debug("%s cannot be checked: %s", name, error)
    return []


def _plain(value: Any) -> Any:
    """Give a label or default as JSON has it, else its text."""
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        return repr(value)
