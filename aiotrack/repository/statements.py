"""The hot statements, made once from one list of columns, for both databases.

Postgres takes a whole group as one JSON parameter: measured at 8 µs of client CPU a row, where
SQLAlchemy's multi-row VALUES cost 195-300 µs. Times travel as whole microseconds.
"""

from __future__ import annotations

from typing import Final

from aiotrack.report import SINGLE_FACTS

TEXT, INT, BIG, FLOAT, BOOL, JSON, TIME = (
    "text",
    "integer",
    "bigint",
    "float8",
    "boolean",
    "json",
    "time",
)

BIRTH_COLUMNS: Final = {
    "task_id": TEXT,
    "task_name": TEXT,
    "module": TEXT,
    "queue": TEXT,
    "priority": INT,
    "created_at": TIME,
    "created_by": TEXT,
    "parent_task_id": TEXT,
    "schedule_id": TEXT,
    "config_id": BIG,
    "rerun_of": TEXT,
    "trace_id": TEXT,
    "time_limit": FLOAT,
    "args": JSON,
    "kwargs": JSON,
    "exact": BOOL,
    "metadata": JSON,
}
RUN_COLUMNS: Final = {
    "run_id": TEXT,
    "witness": INT,
    "status": TEXT,
    "attempt": INT,
    "worker": TEXT,
    "started_at": TIME,
    "finished_at": TIME,
    "duration": FLOAT,
    "result": JSON,
    "error": TEXT,
    "error_type": TEXT,
    "error_class": TEXT,
    "traceback": TEXT,
    "cancel_reason": TEXT,
    "cancelled_by": TEXT,
}
FOLD_COLUMNS: Final = {
    "presumed": BOOL,
    "runs": INT,
    "duplicates": INT,
    "plain": BOOL,
    "stamps": JSON,
}
EXECUTION_COLUMNS: Final = {**BIRTH_COLUMNS, **RUN_COLUMNS, **FOLD_COLUMNS}
PLAIN: Final = {
    "attempt": "1",
    "presumed": "false",
    "duplicates": "0",
    "plain": "true",
    "stamps": "NULL",
}
"""What every row says that one plain report makes."""
TOLD_COLUMNS: Final = tuple(name for name in EXECUTION_COLUMNS if name not in PLAIN)
"""What a plain report tells itself."""
ATTEMPT_COLUMNS: Final = {
    "task_id": TEXT,
    **RUN_COLUMNS,
    "requeues": INT,
    "set_aside": BOOL,
}

EXECUTIONS = "aiotrack_executions"
ATTEMPTS = "aiotrack_attempts"

_FACTS = tuple(name for name in BIRTH_COLUMNS if name in SINGLE_FACTS)
_IS_POSTGRES, _IS_SQLITE = "IS NOT DISTINCT FROM", "IS"

_SAME_MESSAGE = "t.plain AND t.created_at = excluded.created_at"
_SAME_RUN = "t.run_id = excluded.run_id AND excluded.witness > t.witness"


def _assignments(names: list[str], source: str = "excluded") -> str:
    return ", ".join(f"{name} = {source}.{name}" for name in names)


def _same(same: str, *pairs: tuple[str, str]) -> str:
    """Say that pairs of values are equal; *same* is the database's word for it, NULLs included."""
    return f"({', '.join(one for one, _ in pairs)}) {same} ({', '.join(two for _, two in pairs)})"


_SCOPE = [("excluded.module", "t.module"), ("excluded.metadata", "t.metadata")]
"""What a run's word does not replace: a guessed module yields, and metadata is merged by key."""


def _run_conflict(same: str) -> str:
    """Take a worker's report over its own send, or its own earlier report; refuse all else.

    Over a send it is the worker's word that counts (`Source`), as long as it tells every fact.
    """
    taken = [*_FACTS, "args", "kwargs", "exact", *RUN_COLUMNS, "runs"]
    all_told = [(f"COALESCE(excluded.{name}, t.{name})", f"excluded.{name}") for name in _FACTS]
    return (
        f"ON CONFLICT (task_id) DO UPDATE SET {_assignments(taken)} WHERE {_SAME_MESSAGE} "
        f"AND {_same(same, *_SCOPE, *all_told)} AND (t.run_id = '' OR ({_SAME_RUN}))"
    )


def _send_conflict(same: str) -> str:
    """Touch a known row only when it may tell of another message, or otherwise of this one.

    A row that is a run's keeps what the run told; a send adds only what it left out.
    """
    known = [(f"COALESCE(t.{name}, excluded.{name})", f"t.{name}") for name in _FACTS]
    told = [(f"COALESCE(excluded.{name}, t.{name})", f"t.{name}") for name in _FACTS]
    return (
        "ON CONFLICT (task_id) DO UPDATE SET witness = t.witness WHERE NOT t.plain "
        f"OR t.created_at <> excluded.created_at OR NOT ({_same(same, *_SCOPE)}) "
        f"OR NOT CASE WHEN t.run_id = '' THEN {_same(same, *told)} ELSE {_same(same, *known)} END"
    )


class Postgres:
    """The statements in Postgres' words; ``$1`` is a JSON array of objects.

    A record that goes alone has its values as parameters: a statement is then a tenth less work for
    the server than by way of JSON, which takes any number.
    """

    _KINDS: Final = {JSON: "jsonb", TIME: "bigint"}

    @classmethod
    def _records(cls, columns: dict[str, str]) -> str:
        listed = ", ".join(f"{name} {cls._KINDS.get(kind, kind)}" for name, kind in columns.items())
        return f"json_to_recordset($1::json) AS r({listed})"

    @classmethod
    def _record(cls, columns: dict[str, str]) -> str:
        """Make a record of a plain report's `TOLD_COLUMNS`, as parameters in their order.

        JSON is given as text: SQLAlchemy's connections have a codec in Python for the other way.
        """
        places = {name: f"${number}" for number, name in enumerate(TOLD_COLUMNS, 1)}
        given = {
            name: f"{place}::text" if EXECUTION_COLUMNS[name] == JSON else place
            for name, place in places.items()
        }
        listed = ", ".join(
            f"{given.get(name) or PLAIN[name]}::{cls._KINDS.get(kind, kind)} AS {name}"
            for name, kind in columns.items()
        )
        return f"(SELECT {listed}) AS r"

    @staticmethod
    def _value(name: str, kind: str) -> str:
        if kind == TIME:  # in two parts: an interval is multiplied by a float, which has 53 bits
            return (
                f"'epoch'::timestamptz + r.{name} / 1000000 * interval '1 second'"
                f" + r.{name} % 1000000 * interval '1 microsecond'"
            )
        return f"r.{name}"

    @classmethod
    def insert(cls, table: str, columns: dict[str, str], tail: str, *, one: bool = False) -> str:
        """Insert every record of the parameter; *one*: the one that the parameters are."""
        names = ", ".join(columns)
        values = ", ".join(cls._value(name, kind) for name, kind in columns.items())
        source = cls._record(columns) if one else cls._records(columns)
        return f"INSERT INTO {table} AS t ({names}) SELECT {values} FROM {source} {tail}"

    @classmethod
    def update(cls, table: str, columns: dict[str, str]) -> str:
        """Write every record of the parameter over the row with its task_id."""
        sets = ", ".join(
            f"{name} = {cls._value(name, kind)}"
            for name, kind in columns.items()
            if name != "task_id"
        )
        return (
            f"UPDATE {table} t SET {sets} FROM {cls._records(columns)} WHERE t.task_id = r.task_id"
        )

    @classmethod
    def select(cls, table: str, columns: dict[str, str], tail: str) -> str:
        """Read rows with times as microseconds and JSON as text."""
        shown = {
            TIME: "(extract(epoch FROM {0}) * 1000000)::bigint AS {0}",
            JSON: "{0}::text AS {0}",
        }
        listed = ", ".join(shown.get(kind, "{0}").format(name) for name, kind in columns.items())
        return f"SELECT {listed} FROM {table} {tail}"


_TAKEN: Final = f"{_run_conflict(_IS_POSTGRES)} RETURNING task_id"
_TOUCHED: Final = f"{_send_conflict(_IS_POSTGRES)} RETURNING task_id, t.xmax = 0"
"""A send gets back whether its row is new: one that was there is locked before it is touched, and
the lock stays in ``xmax`` (https://www.postgresql.org/docs/current/ddl-system-columns.html)."""

POSTGRES_RUN = Postgres.insert(EXECUTIONS, EXECUTION_COLUMNS, _TAKEN)
POSTGRES_RUN_ONE = Postgres.insert(EXECUTIONS, EXECUTION_COLUMNS, _TAKEN, one=True)
POSTGRES_SEND = Postgres.insert(EXECUTIONS, EXECUTION_COLUMNS, _TOUCHED)
POSTGRES_SEND_ONE = Postgres.insert(EXECUTIONS, EXECUTION_COLUMNS, _TOUCHED, one=True)
POSTGRES_ENSURE = Postgres.insert(
    EXECUTIONS,
    EXECUTION_COLUMNS,
    # Locks the rows that are there, new ones among them, all in one order: no deadlock, and
    # nobody deletes one before it is read.
    "ON CONFLICT (task_id) DO UPDATE SET witness = t.witness WHERE false",
)
_CLAIM: Final = "ON CONFLICT (task_id) DO NOTHING RETURNING task_id"
"""Who gets a row back has it."""

POSTGRES_CLAIM = Postgres.insert(EXECUTIONS, EXECUTION_COLUMNS, _CLAIM, one=True)
POSTGRES_LOCK = Postgres.select(
    EXECUTIONS, EXECUTION_COLUMNS, "WHERE task_id = ANY($1) ORDER BY task_id FOR UPDATE"
)
POSTGRES_ATTEMPTS = Postgres.select(ATTEMPTS, ATTEMPT_COLUMNS, "WHERE task_id = ANY($1)")
POSTGRES_UPDATE = Postgres.update(EXECUTIONS, EXECUTION_COLUMNS)
POSTGRES_ATTEMPT = Postgres.insert(
    ATTEMPTS,
    ATTEMPT_COLUMNS,
    "ON CONFLICT (task_id, run_id) DO UPDATE SET "
    + _assignments([name for name in ATTEMPT_COLUMNS if name not in {"task_id", "run_id"}]),
)

_DURABLY = (
    "set_config('synchronous_commit', CASE current_setting('synchronous_commit') "
    "WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END, true)"
)
POSTGRES_DURABLY = f"SELECT {_DURABLY}"
"""Makes the commit of this transaction wait for the disk, whatever the server's default."""

POSTGRES_STEADY = f"LOCK TABLE {EXECUTIONS}, {ATTEMPTS} IN ROW EXCLUSIVE MODE"
"""Lets nobody make or drop a trigger, a policy or a check in this transaction; writers may write.

https://www.postgresql.org/docs/current/explicit-locking.html#LOCKING-TABLES
"""

POSTGRES_CHECKED = "SET CONSTRAINTS ALL IMMEDIATE"
"""Lets a trigger that waits for the commit say now whether it refuses what was written."""


def durably(statement: str) -> str:
    """Let a statement say so for its own commit, once: no further round trip."""
    mark = " ON CONFLICT"
    return statement.replace(mark, f" WHERE ({POSTGRES_DURABLY}) IS NOT NULL{mark}", 1)


def _sqlite_insert(table: str, columns: dict[str, str], tail: str) -> str:
    names = ", ".join(columns)
    marks = ", ".join("?" for _ in columns)
    return f"INSERT INTO {table} AS t ({names}) VALUES ({marks}) {tail}"


SQLITE_RUN = _sqlite_insert(
    EXECUTIONS, EXECUTION_COLUMNS, f"{_run_conflict(_IS_SQLITE)} RETURNING task_id"
)
SQLITE_SEND = _sqlite_insert(
    EXECUTIONS, EXECUTION_COLUMNS, f"{_send_conflict(_IS_SQLITE)} RETURNING task_id"
)
SQLITE_ENSURE = _sqlite_insert(EXECUTIONS, EXECUTION_COLUMNS, "ON CONFLICT (task_id) DO NOTHING")
SQLITE_CLAIM = _sqlite_insert(EXECUTIONS, EXECUTION_COLUMNS, _CLAIM)
SQLITE_ROW = f"SELECT {', '.join(EXECUTION_COLUMNS)} FROM {EXECUTIONS} WHERE task_id = ?"
SQLITE_ATTEMPTS = f"SELECT {', '.join(ATTEMPT_COLUMNS)} FROM {ATTEMPTS} WHERE task_id = ?"
SQLITE_UPDATE = (
    f"UPDATE {EXECUTIONS} SET "
    + ", ".join(f"{name} = ?" for name in EXECUTION_COLUMNS)
    + " WHERE task_id = ?"
)
SQLITE_ATTEMPT = _sqlite_insert(
    ATTEMPTS,
    ATTEMPT_COLUMNS,
    "ON CONFLICT (task_id, run_id) DO UPDATE SET "
    + _assignments([name for name in ATTEMPT_COLUMNS if name not in {"task_id", "run_id"}]),
)
