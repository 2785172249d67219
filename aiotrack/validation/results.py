"""What a task returned against what it promised: its return annotation, or a validator."""

from __future__ import annotations

import inspect
import logging
import typing
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError

from aiotrack.encode import error_text, error_type
from aiotrack.errors import InvalidResult

if TYPE_CHECKING:
    from aiotrack.encode import Encoder

log = logging.getLogger(__name__)

Check = Callable[[Any], None]

ASYNC: Final = "its validator is async, and nobody awaits it: give a plain function"

SHOWN: Final = 5
"""Faults that a message tells."""


def check_of(
    task_name: str, function: Callable[..., Any], rule: object, encoder: Encoder
) -> Check | None:
    """Give what checks a task's return values; None, with a warning, where nothing can.

    Args:
        task_name: For messages.
        function: The task's.
        rule: The label ``validate_result``: a validator, or anything else for the annotation.
        encoder: Masks what a validator says.
    """
    if callable(rule):
        if any(map(inspect.iscoroutinefunction, (rule, type(rule).__call__))):
            log.warning("every result of %s will be refused: %s", task_name, ASYNC)
        return _by(task_name, rule, encoder)
    try:
        hints = typing.get_type_hints(inspect.unwrap(function), include_extras=True)
        if "return" not in hints:
            _warn(task_name, "its function has no return annotation")
            return None
        adapter = None if hints["return"] is Any else _adapter(hints["return"])
    except Exception as error:  # foreign code: an annotation may be anything
        _warn(task_name, f"its return annotation cannot be used: {error!r}")
        return None
    return None if adapter is None else _against(task_name, adapter)


def _warn(task_name: str, why: str) -> None:
    log.warning(
        "results of %s are not checked, although validate_result is set: %s", task_name, why
    )


def _adapter(hint: Any) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(hint)
    except PydanticSchemaGenerationError:  # a class that pydantic does not know: by isinstance
        return TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))


def _against(task_name: str, adapter: TypeAdapter[Any]) -> Check:
    spared = False

    def check(value: Any) -> None:
        nonlocal spared
        if issubclass(type(value), Iterator):  # to check it is to use it up
            if not spared:
                spared = True
                _warn(task_name, "it returned an iterator, which can be read only once")
            return
        try:
            adapter.validate_python(value)
        except ValidationError as error:
            told = f"returned what does not fit its annotation: {_told(error)}"
        except PydanticUserError as error:  # the annotation's fault, not the value's
            _warn(task_name, f"its return annotation cannot be used: {error}")
            return
        except Exception as error:  # a validator of the user's model
            told = f"returned what cannot be checked: {error_type(error)}"
        else:
            return
        # Outside the handler: what was raised may have the value in it, which may be a secret.
        raise InvalidResult(f"{task_name} {told}")

    return check


def _told(error: ValidationError) -> str:
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    told = [
        f"{'.'.join(map(str, fault['loc'])) or 'the value'}: {fault['msg']}"
        for fault in faults[:SHOWN]
    ]
    more = len(faults) - SHOWN
    return "; ".join(told) + (f"; and {more} more" if more > 0 else "")


def _by(task_name: str, validator: Callable[[Any], object], encoder: Encoder) -> Check:
    def check(value: Any) -> None:
        try:
            answer = validator(value)
            told = " by its validator" if answer is False else ""
            if inspect.isawaitable(answer):  # whatever it would say: not that all is fine
                told = f": {ASYNC}"
                if inspect.iscoroutine(answer):
                    answer.close()
        except Exception as error:
            told = f": {type(error).__name__}: {error_text(error, encoder)}"
        if told:  # outside the handler, as above
            raise InvalidResult(f"the result of {task_name} was refused{told}")

    return check
