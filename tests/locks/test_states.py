"""The scripts of the lock as a state machine, on a real server, against a model in Python.

Answers get lost (the request is repeated, or its owner gives up), requests come twice or late,
leases end, the server forgets its scripts or all of its data.
"""

from __future__ import annotations

import json
import secrets
from typing import Any, ClassVar

import pytest
import redis
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from aiotrack.locks import space
from aiotrack.redis.keys import lock_keys
from aiotrack.testing.servers import ValkeyServer

OWNERS = tuple("abcde")
LONG = 600_000  # milliseconds: nothing ends by itself while a history runs
HOLDS = st.sampled_from(OWNERS)


class Histories(RuleBasedStateMachine):
    """One lock, five owners; ``holder``, ``queue`` and ``gone`` are the model."""

    url: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.client: Any = redis.Redis.from_url(self.url)
        self.namespace = f"states-{secrets.token_hex(6)}"
        self.keys = lock_keys(self.namespace, "x")
        self.messages = self.client.pubsub()
        self.messages.subscribe(f"{self.namespace}:alive")
        assert "subscribe" == self.messages.get_message(timeout=5)["type"]
        self.holder: str | None = None
        self.queue: list[str] = []
        self.gone: set[str] = set()
        self.fences: list[int] = []
        self.told: dict[str, int] = {}

    def teardown(self) -> None:
        found = list(self.client.scan_iter(f"{{{self.namespace}:locks}}*"))
        if found:
            self.client.delete(*found)
        self.messages.close()
        self.client.close()

    def run(self, script: Any, *arguments: object) -> Any:
        """Run a script as the product does."""
        try:
            return self.client.evalsha(script.sha, len(self.keys), *self.keys, *arguments)
        except redis.exceptions.NoScriptError:
            return self.client.eval(script.text, len(self.keys), *self.keys, *arguments)

    def granted(self, owner: str, fence: object) -> None:
        """Note a grant: its fence is higher than any before."""
        if self.holder == owner and self.fences and self.fences[-1] == int(fence):  # type: ignore[call-overload]
            return
        assert not self.fences or int(fence) > self.fences[-1]  # type: ignore[call-overload]
        self.fences.append(int(fence))  # type: ignore[call-overload]
        self.holder = owner

    def freed(self) -> None:
        """The first of the queue has it now."""
        self.holder = None
        if self.queue:
            owner = self.queue.pop(0)
            fence = int(self.client.hget(self.keys[0], "fence"))
            self.granted(owner, fence)

    def ask(self, owner: str, *, waits: bool, is_lost: bool) -> None:
        """Ask for the lock, once more when the answer is lost."""
        channel = f"{self.namespace}:alive" if waits else ""
        answers = [
            self.run(space.ACQUIRE, owner, LONG, json.dumps({"who": owner}), channel, "")
            for _ in range(1 + is_lost)
        ]
        answer = answers[-1]
        if owner in self.gone:
            assert [-1] == answer
        elif self.holder in {None, owner}:
            assert 1 == answer[0]
            self.granted(owner, answer[1])
        else:
            assert 0 == answer[0]
            assert {"who": self.holder} == json.loads(answer[3])
            if waits and owner not in self.queue:
                self.queue.append(owner)

    @rule(owner=HOLDS, waits=st.booleans(), is_lost=st.booleans())
    def acquire(self, owner: str, *, waits: bool, is_lost: bool) -> None:
        self.ask(owner, waits=waits, is_lost=is_lost)

    @rule(owner=HOLDS)
    def extend(self, owner: str) -> None:
        assert (self.holder == owner) == bool(self.run(space.EXTEND, owner, LONG))

    @rule(owner=HOLDS, times=st.integers(1, 3))
    def release(self, owner: str, times: int) -> None:
        for _ in range(times):
            was_holder = self.holder == owner
            assert was_holder == bool(self.run(space.RELEASE, owner))
            if was_holder:
                self.freed()

    @rule(owner=HOLDS)
    def abandon(self, owner: str) -> None:
        was_holder = self.holder == owner
        assert was_holder == bool(self.run(space.ABANDON, owner, LONG))
        self.gone.add(owner)
        if owner in self.queue:
            self.queue.remove(owner)
        if was_holder:
            self.freed()

    @precondition(lambda self: self.gone)
    @rule(data=st.data())
    def come_back(self, data: st.DataObject) -> None:
        """A new token would do that; here an old one is forgotten."""
        owner = data.draw(st.sampled_from(sorted(self.gone)))
        self.gone.remove(owner)
        self.client.delete(f"{self.keys[0]}|gone:{owner}")

    @precondition(lambda self: self.holder is not None)
    @rule(owner=HOLDS)
    def expire(self, owner: str) -> None:
        """The lease ends; nobody tells, until somebody asks: then the first who waits has it."""
        if owner in self.gone:
            return  # its request would be turned away, and nobody be asked
        self.client.delete(self.keys[0])
        self.holder = None
        self.client.zrem(self.keys[1], self.keys[0])
        if self.queue:
            first = self.queue.pop(0)
            answer = self.run(space.ACQUIRE, owner, LONG, "{}", "", "")
            self.granted(first, self.client.hget(self.keys[0], "fence"))
            assert (first == owner) == (answer[0] == 1)

    @precondition(lambda self: self.holder is not None)
    @rule(is_old=st.booleans(), times=st.integers(1, 3))
    def force(self, *, is_old: bool, times: int) -> None:
        fence, request = self.fences[-1] - is_old, secrets.token_hex(4)
        for _ in range(times):
            assert (not is_old) == bool(self.run(space.FORCE_RELEASE, fence, request, LONG))
        if not is_old:
            self.freed()

    @precondition(lambda self: self.holder is not None)
    @rule(owner=HOLDS, times=st.integers(1, 3))
    def take_over(self, owner: str, times: int) -> None:
        if owner in self.queue or owner == self.holder:
            return
        asked = (space.TAKE_OVER, self.fences[-1], owner, LONG, json.dumps({"who": owner}))
        fences = {self.run(*asked) for _ in range(times)}
        assert 1 == len(fences)
        if owner in self.gone:
            assert {None} == fences
        else:
            self.holder = None
            self.granted(owner, fences.pop())

    @rule()
    def forget_scripts(self) -> None:
        self.client.script_flush()

    @rule()
    def lose_all(self) -> None:
        """A restart without data: fences rise all the same."""
        found = list(self.client.scan_iter(f"{{{self.namespace}:locks}}*"))
        if found:
            self.client.delete(*found)
        self.holder, self.queue, self.gone = None, [], set()

    @invariant()
    def the_server_says_the_same(self) -> None:
        owner = self.client.hget(self.keys[0], "owner")
        assert self.holder == (None if owner is None else owner.decode())
        queue = self.client.zrange(f"{self.keys[0]}|queue", 0, -1)
        assert self.queue == [one.decode() for one in queue]
        waiters = {one.decode() for one in self.client.hkeys(f"{self.keys[0]}|waiters")}
        assert set(self.queue) == waiters

    @invariant()
    def nothing_stays_for_ever(self) -> None:
        for key in self.client.scan_iter(f"{self.keys[0]}*"):
            assert self.client.pttl(key) > 0 or not self.client.exists(key)

    @invariant()
    def what_is_held_is_listed(self) -> None:
        listed = self.client.zrange(self.keys[1], 0, -1)
        assert self.holder is None or [self.keys[0].encode()] == listed


def explore(url: str, examples: int) -> None:
    """Run so many histories."""
    kind = type("Explored", (Histories,), {"url": url})
    case = kind.TestCase
    case.settings = settings(max_examples=examples, stateful_step_count=30, deadline=None)
    case("runTest").runTest()


@pytest.mark.timeout(120)
def test_the_scripts_do_what_the_model_says(own_valkey: ValkeyServer) -> None:
    """Some histories of thirty steps each."""
    explore(own_valkey.url, 20)


@pytest.mark.chaos
@pytest.mark.timeout(3600)
def test_thousands_of_histories(own_valkey: ValkeyServer) -> None:
    """The long form."""
    explore(own_valkey.url, 5_000)
