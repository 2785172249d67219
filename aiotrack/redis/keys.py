"""Every key and channel in Redis: what it is, who writes it, how long it lives.

All carry the setting ``namespace`` (``aiotrack``): two projects on one Redis share nothing. The
keys of locks share the hash tag ``{<namespace>:locks}``, those of schedules likewise, so that a
script may touch several of them also in a cluster. No lock's name has a ``|``, so that none is the
key beside another one.

==============================  =======  ==================================  =====================
name                            type     what                                lives
==============================  =======  ==================================  =====================
``<namespace>:live``            channel  task_ids of executions that changed
``<namespace>:cancels``         channel  task_ids that somebody asked to
                                         end, with reason and asker: JSON
``<namespace>:held``            channel  task_ids that held messages wait
                                         for from now on: JSON
``<namespace>:woken:<loop>``    channel  ``<owner> <fence>``: a lock that an
                                         event loop's waiter was given
``{<namespace>:locks}:<lock>``  hash     owner, fence, info, since           as long as the lease
``…:<lock>|fence``              string   the last fence                      30 days
``…:<lock>|queue``              zset     who waits, by arrival               10 s; each asks anew
``…:<lock>|waiters``            hash     how each of them is told            10 s; likewise
``…:<lock>|gone:<owner>``       string   this owner has given up             10 s
``…:<lock>|forced:<id>``        string   a request that took it away         10 s
``{<namespace>:locks}``         zset     every held lock, by its lease       until the last is read
``{<namespace>:schedules}``     hash     definition -> what is sent, when,   until it is stopped
                                         and whether it is paused: JSON
``{…:schedules}:due``           zset     definition, by its next due time    likewise
                                         (milliseconds)
``{…:schedules}:changes``       zset     definition, by its last change      for ever
``{…:schedules}:version``       string   the number of the last change       for ever
``{…:schedules}:sending``       zset     ``<definition>:<due>`` that is      until it was sent
                                         being sent, by the end of the
                                         time for it
``{…:schedules}:made``          string   which making of all these this is:  for ever
                                         without it they are made anew
==============================  =======  ==================================  =====================
"""

from __future__ import annotations

_OF_SCHEDULES = ("changes", "due", "sending", "version", "made")


def live_channel(namespace: str) -> str:
    """Name the channel of changed executions."""
    return f"{namespace}:live"


def cancels_channel(namespace: str) -> str:
    """Name the channel of wishes to end executions."""
    return f"{namespace}:cancels"


def held_channel(namespace: str) -> str:
    """Name the channel of executions that held messages wait for."""
    return f"{namespace}:held"


def woken_channel(namespace: str, loop: str) -> str:
    """Name the channel on which an event loop hears which of its waiters got a lock."""
    return f"{namespace}:woken:{loop}"


def lock_index(namespace: str) -> str:
    """Name the list of locks that are held."""
    return f"{{{namespace}:locks}}"


def lock_keys(namespace: str, lock: str) -> tuple[str, str]:
    """Name the key of a lock, beside which its others stand, and the list of all."""
    index = lock_index(namespace)
    return f"{index}:{lock}", index


def schedule_keys(namespace: str) -> tuple[str, ...]:
    """Name the keys of the schedules, as their scripts take them."""
    base = f"{{{namespace}:schedules}}"
    return (base, *(f"{base}:{name}" for name in _OF_SCHEDULES))
