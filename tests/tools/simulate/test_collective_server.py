"""The hub over real pipes: death at each point of a collective, and mistakes of members."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from functools import partial
from multiprocessing.connection import Connection, Pipe

import pytest

from trimtab_tools.simulate.group import Group
from trimtab_tools.simulate.collective_server import CollectiveServer
from trimtab_tools.simulate.messages import GroupBroken, Contribution, FromRank, Ready, Result

WAIT = 30


class Heard:
    """A listener that keeps what it hears."""

    def __init__(self) -> None:
        self.events: queue.SimpleQueue[tuple[str, object]] = queue.SimpleQueue()

    def received(self, member: int, message: FromRank) -> None:
        self.events.put(("received", (member, message)))

    def lost(self, member: int) -> None:
        self.events.put(("lost", member))

    def failed(self, error: Exception) -> None:
        self.events.put(("failed", str(error)))


class Setting:
    """A hub, its listener, and the members' ends of its pipes."""

    def __init__(self, members: int) -> None:
        self.heard = Heard()
        self.hub = CollectiveServer(self.heard)
        self.pipes: list[Connection] = []
        self.hub.post(lambda: self.hub.form(Group("g", range(members))))
        for member in range(members):
            ours, theirs = Pipe()
            self.pipes.append(theirs)
            self.hub.post(partial(self.hub.add, member, ours))

    def bring(self, member: int, step: int) -> None:
        parts = [bytes([member, step])] * len(self.pipes)
        self.pipes[member].send(Contribution(step, "tokens", parts))

    def answer(self, member: int) -> object:
        assert self.pipes[member].poll(WAIT)
        return self.pipes[member].recv()


@pytest.fixture
def setting() -> Iterator[Setting]:
    made = Setting(3)
    yield made
    made.hub.close()
    for pipe in made.pipes:
        pipe.close()


def result(step: int) -> Result:
    return Result([bytes([member, step]) for member in range(3)])


def test_a_result_goes_to_all(setting: Setting):
    for step in range(3):
        for member in (2, 0, 1):
            setting.bring(member, step)
        assert [setting.answer(member) for member in range(3)] == [result(step)] * 3


@pytest.mark.parametrize("others", [[], [0], [0, 1]], ids=["first", "between", "last"])
@pytest.mark.parametrize("comes", [False, True], ids=["before it comes", "after it has come"])
def test_a_member_that_dies_breaks_the_group_for_all_or_for_none(
    setting: Setting, others: list[int], comes: bool
):
    """However its death falls into the arrivals of the others."""
    for member in others:
        setting.bring(member, 0)
    if comes:
        setting.bring(2, 0)
    setting.pipes[2].close()
    assert setting.heard.events.get(timeout=WAIT) == ("lost", 2)
    for member in (0, 1):
        if member not in others:
            setting.bring(member, 0)
    answers = [setting.answer(member) for member in (0, 1)]

    whole = comes and others == [0, 1]
    assert answers == [result(0) if whole else GroupBroken("rank 2 has died")] * 2
    if whole:
        for member in (0, 1):
            setting.bring(member, 1)
        assert {setting.answer(member) for member in (0, 1)} == {GroupBroken("rank 2 has died")}


def test_many_collectives_end_at_one_point_for_all_survivors(setting: Setting):
    """A death while all run: each survivor has got the same results, and then the break."""
    got: list[list[object]] = [[], [], []]

    def take_part(member: int, steps: int) -> None:
        for step in range(steps):
            setting.bring(member, step)
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


def test_what_is_no_collective_goes_to_the_listener(setting: Setting):
    setting.pipes[1].send(Ready())

    assert setting.heard.events.get(timeout=WAIT) == ("received", (1, Ready()))


def test_a_mistake_of_members_ends_the_group_and_is_told(setting: Setting):
    for member in range(3):
        setting.bring(member, member)
    kind, message = setting.heard.events.get(timeout=WAIT)

    assert kind == "failed"
    assert "different collectives" in str(message)
    assert {type(setting.answer(member)) for member in range(3)} == {GroupBroken}
