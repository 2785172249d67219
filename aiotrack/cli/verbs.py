"""Every verb of the program: what it is for, and the module that is loaded when it is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Verb:
    """A verb.

    ``module`` is the one of this folder that adds it; ``told`` is the first line of its help.
    """

    module: str
    told: str


GROUPS: Final = {
    "Look": {
        "list": Verb("records", "List executions, the newest first."),
        "show": Verb("records", "Show one execution and each of its attempts."),
        "explain": Verb("explain", "Tell one execution in words, and what it waits for."),
        "watch": Verb("follow", "Follow executions live."),
        "logs": Verb("logs", "Show what an execution logged, attempt by attempt."),
        "stats": Verb("records", "Count executions by status, module and task."),
        "report": Verb("report", "Sum up a stretch of time, beside the one before it."),
        "workers": Verb("workers", "See the worker processes: who lives, who was lost."),
        "tasks": Verb("tasks", "See the tasks that a broker knows, and what they take."),
        "queues": Verb("tasks", "See what waits in a broker's queues, and who listens."),
        "audit": Verb("audit", "See who did what to what, and why."),
    },
    "Act": {
        "cancel": Verb("cancel", "End an execution."),
        "rerun": Verb("rerun", "Send executions again, with the arguments that they had."),
        "sync": Verb("follow", "Fill an unfinished record from the result backend."),
        "schedules": Verb("schedules", "See what is sent when; start, stop, pause, resume it."),
        "locks": Verb("locks", "See who holds which lock; take one away."),
        "sweep": Verb("sweep", "Do now what is done by the clock otherwise."),
        "config": Verb("config", "See what is set, and by whom; set it."),
    },
    "Set up": {
        "demo": Verb("demo", "Watch a real broker, worker and database at work."),
        "serve": Verb("serve", "Serve the REST API and the dashboard."),
        "doctor": Verb("doctor", "Find what is wrong with a project's set-up."),
        "db": Verb("database", "Look after the schema."),
        "version": Verb("version", "Show the version."),
    },
}
"""Help shows all of this without loading any of it: TaskIQ and SQLAlchemy take half a second."""

VERBS: Final = {name: verb for group in GROUPS.values() for name, verb in group.items()}
