"""Any value → bounded, safe JSON; redaction before anything leaves the process."""

from aiotrack.encode.decode import inexact, revive
from aiotrack.encode.encoder import Encoded, Encoder
from aiotrack.encode.failure import error_text, error_type, format_traceback
from aiotrack.encode.leaves import is_stored_int, stored_int
from aiotrack.encode.redact import encode_task_id, is_shortened

__all__ = [
    "Encoded",
    "Encoder",
    "encode_task_id",
    "error_text",
    "error_type",
    "format_traceback",
    "inexact",
    "is_shortened",
    "is_stored_int",
    "revive",
    "stored_int",
]
