"""The trace that work belongs to, told by OpenTelemetry where it is used. Never an error.

A message carries the W3C header of TaskIQ's `OpenTelemetryMiddleware` as a label; a body knows its
span, whatever propagator, instrumentation or place among the middlewares made it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Any, Final

TRACEPARENT: Final = "traceparent"
"""https://www.w3.org/TR/trace-context/#traceparent-header"""

_HEADER: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")

PLACE: Final = "{trace_id}"
"""Where an address of traces takes the id."""


def trace_of(labels: Mapping[str, Any]) -> str | None:
    """Give the trace that a message carries: 32 hexadecimal digits; None when it has none."""
    header = labels.get(TRACEPARENT)
    found = _HEADER.match(header) if isinstance(header, str) else None
    return None if found is None else found[1]


def current_trace() -> str | None:
    """Give the trace of the span that is open in this context; None when there is none."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:  # nobody here uses it, and a tracker does not load it
        return None
    try:
        if not sys.modules["opentelemetry.context"].get_current():
            return None  # nothing is open here, as in most runs: asking for the span takes longer
        found = trace.get_current_span().get_span_context().trace_id
        return f"{found:032x}" if found else None
    except Exception:  # a propagator of the user's own: a trace is no reason to miss a record
        return None


def trace_url(template: str | None, trace_id: str | None) -> str | None:
    """Give the address of a trace; None without an address of traces, or without a trace."""
    if template is None or trace_id is None:
        return None
    return template.replace(PLACE, trace_id)
