"""A report as JSON can hold it, and back: also what another release wrote, or damage left."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, get_args, get_type_hints

from aiotrack.clock import boot_id, host_offset, settle_by_host
from aiotrack.model import TaskStatus
from aiotrack.report import Origin, Report, Witness, is_unsettled, settled


def to_json(report: Report) -> dict[str, Any]:
    """Give a report as JSON can hold it; one without a date says whose clock it is by."""
    said = asdict(report)
    if is_unsettled(report):
        said["clock"] = [boot_id(), host_offset()]
    return said


def from_json(said: dict[str, Any]) -> Report:
    """Give back what `to_json` made, also by an older release: unknown fields are left out."""
    origin = Origin(**_known(said.pop("origin"), _ORIGIN))
    patch = said.pop("patch", None)
    boot, offset = said.pop("clock", None) or (None, 0)
    rest = _known(said, _REPORT)
    rest["witness"] = Witness(rest["witness"])
    rest["status"] = TaskStatus(rest["status"])
    report = Report(origin=origin, **rest)
    if patch:
        report.patch = {key: (tuple(stamp), text) for key, (stamp, text) in patch.items()}
    if boot is not None and boot != boot_id():
        return settled(report, lambda moment: settle_by_host(moment, offset))
    return report


def _kinds(of: type, *apart: str) -> dict[str, Any]:
    """Give the fields of *of*, and what each may hold as JSON has it."""
    hints = {name: kind for name, kind in get_type_hints(of).items() if name not in apart}
    return {
        name: kind | int if float in (kind, *get_args(kind)) else kind
        for name, kind in hints.items()
    }


_ORIGIN = _kinds(Origin)
_REPORT = _kinds(Report, "origin", "patch") | {"witness": int, "status": str}


def _known(said: dict[str, Any], kinds: dict[str, Any]) -> dict[str, Any]:
    """Give the fields that this release knows.

    Raises:
        TypeError: One is not what it must be: further on it would stop all that is written with it.
    """
    known = {name: said[name] for name in kinds if name in said}
    for name, value in known.items():
        is_long = isinstance(value, int) and not -(2**63) <= value < 2**63
        if is_long or not isinstance(value, kinds[name]):
            raise TypeError(f"{name} is a {type(value).__name__}")
    return known
