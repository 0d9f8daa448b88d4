"""The rollouts that the examples begin with, what their workers say, and what is done for it."""

from __future__ import annotations

from typing import Any, Self

from trimtab_protocol import history, messages
from trimtab_protocol.history import Member
from trimtab_protocol.placement import Placement
from trimtab_protocol.version import Version
from trimtab_server.domain.placement import placement_of
from trimtab_server.rollout.effects import Effect, GroupOffer, Note, Send
from trimtab_server.rollout.record import Origin, Record, Served, Stage, Switch
from trimtab_server.rollout.rollout import Rollout

# One layer of three experts in four slots, two slots on each of two GPUs. Group "g1" is
# worker "a" on GPU 0, in session 1, and worker "b" on GPU 1, in session 2.
GPUS = {"a": (0,), "b": (1,)}
MEMBERS = {worker: Member(1, gpus) for worker, gpus in GPUS.items()}
OLD, NEW, OTHER = (placement_of([[0, 1, 2, last]], 3, 2) for last in range(3))
BASE, FIRST, SECOND = (Version(1, generation) for generation in range(3))
OFFER = GroupOffer(FIRST, BASE, OLD, NEW)
COMMIT = messages.Commit(FIRST, NEW.digest)
OPEN = Switch(FIRST, NEW, Stage.OFFERED)
STARTED_WITH = Served(BASE, OLD, Origin.STARTED)
PAST = (STARTED_WITH,)
PREPARED, DISCARDED = messages.Prepared(FIRST, NEW.digest), messages.Discarded(FIRST)
REFUSED = messages.Refused(FIRST, NEW.digest, "no room")
APPLIED = messages.Applied(FIRST, NEW.digest, 8)
HELD, ARMED, DISCARDING = (
    messages.Held(FIRST, messages.HeldState[state]) for state in ("PREPARED", "ARMED", "DISCARDING")
)
FLIPPED = {"placement": NEW, "in_force": FIRST, "flipped_at": 8}


def hello(worker: str = "a", **values: Any) -> messages.Hello:
    usual = {"group_id": "g1", "worker": worker, "incarnation": 1, "stream": 1, "placement": OLD}
    return messages.Hello(**{**usual, "gpus": GPUS.get(worker), **values})


class Example(Rollout):
    """A rollout, and what workers a and b do in it."""

    def join(self, number: int, worker: str = "a", **values: Any) -> list[Effect]:
        return self.joined(number, hello(worker, **values))

    def join_both(self, first: int = 1, **values: Any) -> list[Effect]:
        """Both join, in two sessions from this number on."""
        return [*self.join(first, "a", **values), *self.join(first + 1, "b", **values)]

    def answer_both(self, answer: messages.Answer) -> list[Effect]:
        return [*self.answered(1, answer), *self.answered(2, answer)]

    def without(self, *numbers: int) -> Self:
        """These sessions end."""
        for number in numbers:
            self.left(number)
        return self

    def restarted(self) -> Example:
        """The server restarts."""
        return Example(self.record, num_gpus=2)


def empty() -> Example:
    """A rollout without any event."""
    return Example(Record(), num_gpus=2)


def serving() -> Example:
    """Group g1 serves in epoch 1 with generation 0."""
    rollout = empty()
    rollout.join_both()
    return rollout


def offered() -> Example:
    """1.1 is offered."""
    rollout = serving()
    rollout.propose(NEW)
    return rollout


def half_prepared() -> Example:
    rollout = offered()
    rollout.answered(1, PREPARED)
    return rollout


def committed() -> Example:
    """Both have prepared 1.1."""
    rollout = offered()
    rollout.answer_both(PREPARED)
    return rollout


def aborting() -> Example:
    """1.1 was not prepared in time."""
    rollout = offered()
    rollout.expired(FIRST)
    return rollout


def aborted() -> Example:
    rollout = aborting()
    rollout.answer_both(DISCARDED)
    return rollout


def half_applied() -> Example:
    rollout = committed()
    rollout.answered(1, APPLIED)
    return rollout


def applied() -> Example:
    """1.1 is in force."""
    rollout = committed()
    rollout.answer_both(APPLIED)
    return rollout


def paused() -> Example:
    rollout = serving()
    rollout.pause("maintenance")
    return rollout


# What is done for it.


def only(kind: type, effects: list[Effect]) -> list[Any]:
    return [effect for effect in effects if isinstance(effect, kind)]


def orders(effects: list[Effect]) -> list[Any]:
    return [send.order for send in only(Send, effects)]


def note_of(kind: str, version: Version = FIRST, **values: Any) -> Note:
    if "worker" in values and "incarnation" in values:
        values["process"] = history.Process(values.pop("worker"), values.pop("incarnation"))
    return Note(history.KINDS[kind](version=version, **values))


def welcome(number: int, version: Version = BASE, placement: Placement = OLD) -> Send:
    return Send(number, messages.Welcome(version, placement.digest))


def abort(cause: str, reason: str, *sessions: int) -> list[Effect]:
    """The offer of 1.1 is aborted, and these sessions are told so."""
    sends = [Send(number, messages.Abort(FIRST)) for number in sessions]
    return [note_of("aborting", cause=cause, reason=reason), *sends]


def ignored(answer: messages.Answer, worker: str | None = "a") -> list[Effect]:
    values = {"answer": type(answer).__name__, "worker": worker, "version": answer.version}
    return [Note(history.Other("ignored", values))]
