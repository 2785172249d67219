"""A broker on top of taskiq-redis: priorities, leases, and nothing that is lost or grows."""

from aiotrack.brokers.broker import PriorityStreamBroker
from aiotrack.brokers.letters import DeadLetter

__all__ = ["DeadLetter", "PriorityStreamBroker"]
