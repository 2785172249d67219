"""The query parameters of lists, read into the filters of `Tracker.list`."""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime, time
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    StringConstraints,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from aiotrack.api.problems import Refused
from aiotrack.api.site import ClosedQuery, Here, needs_caller
from aiotrack.model import TaskStatus
from aiotrack.repository.filters import MAX_TEXT, Narrowing

INT64: Final = 2**63
LONGEST: Final = 1000
"""Characters of a value."""

SEVERAL: Final = 100
"""Values of one parameter."""

DEEPEST: Final = 10_000
"""Rows that pages with a number reach; the database walks through all before them."""

METADATA: Final = "metadata."

_SPACED: Final = re.compile(r"(\d{4}-?\d\d-?\d\d[T ]\d\d.*) (\d\d(?::?\d\d)?)")
"""A time whose ``+`` was not encoded, so that it came as a space."""

_TOLD: Final = {"extra_forbidden": "there is no such parameter"}

Text = Annotated[str, StringConstraints(max_length=LONGEST)]
Texts = Annotated[list[Text], Field(max_length=SEVERAL)]
Int64 = Annotated[int, Field(ge=-INT64, lt=INT64)]


def _words(values: list[str]) -> list[str]:
    words = [word for value in values for word in value.split(",") if word.strip()]
    return [TaskStatus.parse(word).value for word in words]


Status = Annotated[
    list[
        Annotated[
            str,
            StringConstraints(max_length=LONGEST),
            WithJsonSchema({"type": "string", "enum": [*(one.value for one in TaskStatus), ""]}),
        ]
    ],
    Field(max_length=SEVERAL),
    AfterValidator(_words),
]

_TIME: Final = WithJsonSchema(
    {"anyOf": [{"type": "string", "format": form} for form in ("date-time", "date")]}
)
Begin = Annotated[datetime, BeforeValidator(lambda text: _moment(text, time.min)), _TIME]
End = Annotated[datetime, BeforeValidator(lambda text: _moment(text, time.max)), _TIME]

Order = Annotated[
    Literal["-created_at", "created_at", "-finished_at", "finished_at", "-duration", "duration"],
    BeforeValidator(lambda text: text.lstrip("+ ") if isinstance(text, str) else text),
]


class Filters(ClosedQuery):
    """What narrows a list, and what is counted or done of it."""

    module: Texts = Field([], description="Business scope; several are alternatives.")
    task_name: Texts = Field([])
    status: Status = Field(
        [],
        description="Repeated or comma-separated; an empty one says nothing. Words of other tools "
        "are understood, in any case: `queued`, `running`, `completed`, `failed`, `timed_out`, "
        "`cancelled`, ...",
    )
    created_by: Texts = Field([], description="Who asked for it.")
    my_tasks: Text | None = Field(
        None,
        description="`false` shows all that the caller may see. Else it is the caller's own, "
        "unless `created_by` is given. Without a caller it has no meaning.",
    )
    start_date: Begin | None = Field(
        None,
        description="Created since: ISO time or date, inclusive; without an offset it is UTC.",
    )
    end_date: End | None = Field(
        None, description="Created until, inclusive; a bare date includes that whole day."
    )
    since: Begin | None = Field(None, description="As `start_date`; the later one counts.")
    until: End | None = Field(None, description="As `end_date`; the earlier one counts.")
    worker: Texts = Field([], description="Id of the process that ran it.")
    error_class: Texts = Field([], description="`timeout`, `cancelled`, `lost`, ...")
    config_id: Annotated[list[Int64], Field(max_length=SEVERAL)] = Field(
        [], description="Task definition that it was sent by."
    )
    schedule_id: Texts = Field([])
    text: Annotated[str, StringConstraints(max_length=MAX_TEXT)] | None = Field(
        None, description="How the task_id or the name begins, in its own case."
    )

    _metadata: dict[str, Any] = PrivateAttr(default_factory=dict)

    @model_validator(mode="wrap")
    @classmethod
    def _with_metadata(cls, values: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Take out ``metadata.<key>``: the keys are anybody's, so that no field has their name."""
        faults: list[InitErrorDetails] = []
        metadata: dict[str, Any] = {}
        rest: dict[str, Any] = {}
        for name, value in values.items():
            if not name.startswith(METADATA):
                rest[name] = value
                continue
            try:
                metadata[name.removeprefix(METADATA)] = _value(value)
            except ValueError as error:
                faults.append(_fault("value_error", (name[:LONGEST],), str(error)))
        made: Self | None = None
        try:
            made = handler(rest)
        except ValidationError as error:
            told = error.errors(include_url=False, include_context=False, include_input=False)
            faults = [*(_fault(one["type"], one["loc"], one["msg"]) for one in told), *faults]
        if faults or made is None:
            raise ValidationError.from_exception_data(cls.__name__, faults)
        made._metadata = metadata  # noqa: SLF001 - a new one of this class
        return made

    def narrowing(self, here: Here, *, mine: bool = False) -> Narrowing:
        """Give the filters as `Tracker.list` takes them, narrowed to what the caller may see.

        Args:
            here: Who asks.
            mine: Only what he sent himself, whatever was asked for.

        Raises:
            Refused: Somebody else's executions: 403; nobody in particular asks for his own: 401.
        """
        return Narrowing(
            module=_given(self.module),
            task_name=_given(self.task_name),
            status=self.status or None,
            created_by=self._creators(here, mine=mine),
            since=max(filter(None, (self.start_date, self.since)), default=None),
            until=min(filter(None, (self.end_date, self.until)), default=None),
            metadata=self._metadata or None,
            worker=_given(self.worker),
            error_class=_given(self.error_class),
            config_id=self.config_id or None,
            schedule_id=_given(self.schedule_id),
            text=self.text or None,
        )

    def _creators(self, here: Here, *, mine: bool) -> list[str] | None:
        asked = _given(self.created_by)
        caller = here.caller
        if mine or caller.is_own:
            own = needs_caller(here)
            if asked is not None and set(asked) != {own}:
                raise Refused(403, "forbidden", "this shows only what the caller sent himself")
            return [own]
        if asked is not None:
            return asked
        shows_all = caller.id is None or (self.my_tasks or "").strip().lower() == "false"
        return None if shows_all or caller.id is None else [caller.id]

    @property
    def is_narrow(self) -> bool:
        """Whether any filter was given, besides whose executions they are."""
        texts = (self.module, self.task_name, self.worker, self.error_class, self.schedule_id)
        lists = (*map(_given, (*texts, self.created_by)), self.status, self.config_id)
        times = (self.start_date, self.end_date, self.since, self.until)
        return bool(any(lists) or any(times) or self._metadata or self.text)

    def told(self) -> dict[str, Any]:
        """Give what was asked for, for the audit."""
        told = self.model_dump(exclude_defaults=True, mode="json")
        return told | {f"{METADATA}{key}": value for key, value in self._metadata.items()}


class ListQuery(Filters):
    """What a list is narrowed by, and which part of it is shown."""

    order: Order = Field(
        "-created_at", description="`-` is descending; what has no value yet comes last."
    )
    page_size: Annotated[int, Field(ge=1, le=500)] | None = Field(
        None, description="Rows of the page; 50 unless told."
    )
    limit: Annotated[int, Field(ge=1, le=500)] | None = Field(
        None, description="As `page_size`, which comes first."
    )
    after: Text | None = Field(
        None, description="`next` of the page before, with the same order and filters."
    )
    page: Annotated[int, Field(ge=1, le=DEEPEST)] | None = Field(
        None,
        description="Number of the page, as far as row 10,000; `after` comes first, goes as far "
        "as there are rows, and costs the same everywhere.",
    )
    count: bool = Field(False, description="Adds `total` and `total_exact`.")

    @property
    def size(self) -> int:
        """Rows of the page."""
        return self.page_size or self.limit or 50

    @property
    def skipped(self) -> int:
        """Rows before the page.

        Raises:
            Refused: More than are walked through: 422.
        """
        if self.after or self.page is None:
            return 0
        rows = (self.page - 1) * self.size
        if rows >= DEEPEST:
            detail = f"page {self.page} begins beyond row {DEEPEST:,}: go on with 'after'"
            raise Refused(422, "page-too-deep", detail)
        return rows


def _given(texts: list[str]) -> list[str] | None:
    """Leave out what forms send for fields that nobody filled in."""
    return [text for text in texts if text] or None


def _value(value: object) -> Any:
    """Read a number, true, false, null or a text in quotes as JSON; all else is text."""
    if not isinstance(value, str):
        raise ValueError("it is given several times: an execution has one value")  # noqa: TRY004
    if len(value) > LONGEST:
        raise ValueError(f"it is longer than {LONGEST} characters")
    try:
        read = json.loads(value, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return value
    return value if isinstance(read, (dict, list)) else read


def _fault(kind: str, place: tuple[int | str, ...], message: str) -> InitErrorDetails:
    told = _TOLD.get(kind, message.removeprefix("Value error, "))
    return InitErrorDetails(type=PydanticCustomError(kind, told), loc=place, input=None)


def _no_number(word: str) -> None:
    raise ValueError(word)


def _moment(text: object, of_day: time) -> object:
    """Read a time, or a date as a moment of that day."""
    if not isinstance(text, str) or len(text) > LONGEST:
        return text
    word = _SPACED.sub(r"\1+\2", text.strip().upper())
    try:
        return datetime.combine(date.fromisoformat(word), of_day, UTC)
    except ValueError:
        pass
    try:
        found = datetime.fromisoformat(word)
    except ValueError:
        raise ValueError("no time: write 2026-01-31 or 2026-01-31T08:00:00Z") from None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found
