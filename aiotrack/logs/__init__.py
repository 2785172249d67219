"""What tasks log, kept for each attempt in the table ``aiotrack_logs``.

From the inside out: `scroll` keeps the first and the last lines of an attempt, `writer` gathers
those of a loop and writes them, `lines` makes a line of a record, `hearing` finds the attempt that
a record belongs to, `listener` hears records, `collector` and `reading` are what users call.

Lines have no foreign key: they may be written before the record of their execution is. Whatever
deletes an execution has to delete its lines, by ``task_id``, which the table's key begins with.
"""

from aiotrack.logs.collector import TaskLogCollector
from aiotrack.logs.reading import follow, page
from aiotrack.logs.writer import Logs

__all__ = ["Logs", "TaskLogCollector", "follow", "page"]
