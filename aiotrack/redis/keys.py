"""Every key and channel in Redis: what it is, who writes it, how long it lives.

All begin with the setting ``namespace`` (``aiotrack``): two projects on one Redis share nothing.

====================  =======  ==========================================  ==============
name                  type     what                                        lives
====================  =======  ==========================================  ==============
``<namespace>:live``  channel  task_ids of executions that changed         nothing is kept
====================  =======  ==========================================  ==============
"""

from __future__ import annotations


def live_channel(namespace: str) -> str:
    """Name the channel of changed executions."""
    return f"{namespace}:live"
