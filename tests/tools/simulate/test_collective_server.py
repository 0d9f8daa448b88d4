"""The collective server over real pipes: deaths at each point of a collective, and misuse."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from functools import partial
from multiprocessing.connection import Connection, Pipe

import pytest

from trimtab_tools.simulate.collective_server import CollectiveServer
from trimtab_tools.simulate.group import Group
from trimtab_tools.simulate.messages import Contribution, FromRank, GroupBroken, Ready, Result

WAIT = 30


class Recorder:
    """A listener that records its calls."""

    def __init__(self) -> None:
        self.events: queue.SimpleQueue[tuple[str, object]] = queue.SimpleQueue()

    def received(self, member: int, message: FromRank) -> None:
        self.events.put(("received", (member, message)))

    def lost(self, member: int) -> None:
        self.events.put(("lost", member))

    def failed(self, error: Exception) -> None:
        self.events.put(("failed", str(error)))


class Setting:
    """A server, its listener, and the members' ends of its pipes."""

    def __init__(self, members: int) -> None:
        self.listener = Recorder()
        self.server = CollectiveServer(self.listener)
        self.pipes: list[Connection] = []
        self.server.post(lambda: self.server.form(Group("g", range(members))))
        for member in range(members):
            ours, theirs = Pipe()
            self.pipes.append(theirs)
            self.server.post(partial(self.server.add, member, ours))

    def contribute(self, member: int, step: int) -> None:
        parts = [bytes([member, step])] * len(self.pipes)
        self.pipes[member].send(Contribution(step, "tokens", parts))

    def answer(self, member: int) -> object:
        assert self.pipes[member].poll(WAIT)
        return self.pipes[member].recv()


@pytest.fixture
def setting() -> Iterator[Setting]:
    made = Setting(3)
    yield made
    made.server.close()
    for pipe in made.pipes:
        pipe.close()


def result(step: int) -> Result:
    return Result([bytes([member, step]) for member in range(3)])


def test_all_members_get_the_result(setting: Setting):
    for step in range(3):
        for member in (2, 0, 1):
            setting.contribute(member, step)
        assert [setting.answer(member) for member in range(3)] == [result(step)] * 3


@pytest.mark.parametrize("others", [[], [0], [0, 1]], ids=["first", "between", "last"])
@pytest.mark.parametrize(
    "contributed", [False, True], ids=["before it contributes", "after it has contributed"]
)
def test_the_death_of_a_member_breaks_a_collective_for_all_or_for_none(
    setting: Setting, others: list[int], contributed: bool
):
    """Whether it dies before or after the others have contributed."""
    for member in others:
        setting.contribute(member, 0)
    if contributed:
        setting.contribute(2, 0)
    setting.pipes[2].close()
    assert setting.listener.events.get(timeout=WAIT) == ("lost", 2)
    for member in (0, 1):
        if member not in others:
            setting.contribute(member, 0)
    answers = [setting.answer(member) for member in (0, 1)]

    whole = contributed and others == [0, 1]
    assert answers == [result(0) if whole else GroupBroken("rank 2 has died")] * 2
    if whole:
        for member in (0, 1):
            setting.contribute(member, 1)
        assert {setting.answer(member) for member in (0, 1)} == {GroupBroken("rank 2 has died")}


def test_all_survivors_get_the_same_results_before_the_group_breaks(setting: Setting):
    """A member dies while all run."""
    got: list[list[object]] = [[], [], []]

    def take_part(member: int, steps: int) -> None:
        for step in range(steps):
            setting.contribute(member, step)
            got[member].append(setting.answer(member))
            if isinstance(got[member][-1], GroupBroken):
                return
        setting.pipes[member].close()

    threads = [
        threading.Thread(target=take_part, args=(member, 57 if member == 1 else 1000))
        for member in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)

    assert got[0] == got[2] == [*map(result, range(57)), GroupBroken("rank 1 has died")]


def test_other_messages_go_to_the_listener(setting: Setting):
    setting.pipes[1].send(Ready())

    assert setting.listener.events.get(timeout=WAIT) == ("received", (1, Ready()))


def test_an_error_of_members_breaks_the_group_and_goes_to_the_listener(setting: Setting):
    for member in range(3):
        setting.contribute(member, member)
    kind, message = setting.listener.events.get(timeout=WAIT)

    assert kind == "failed"
    assert "different collectives" in str(message)
    assert {type(setting.answer(member)) for member in range(3)} == {GroupBroken}
