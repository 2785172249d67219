"""What becomes of a body's end: results against annotations, errors against retries."""

from aiotrack.validation.feature import Validation
from aiotrack.validation.retries import get_task_retry_labels

__all__ = ["Validation", "get_task_retry_labels"]
