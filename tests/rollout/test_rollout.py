"""The server's side of the switch, by examples for each rule of PROTOCOL.md that it keeps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from trimtab_protocol import history
from trimtab_protocol.history import Member
from trimtab_protocol.messages import (
    Abort,
    Accepted,
    Answer,
    Applied,
    Commit,
    Discarded,
    Held,
    HeldState,
    Hello,
    Prepared,
    Refused,
    Welcome,
)
from trimtab_protocol.version import Version
from trimtab_server.domain.errors import FailedPreconditionError
from trimtab_server.domain.placement import placement_of
from trimtab_server.rollout.effects import (
    Alarm,
    Close,
    Effect,
    Expire,
    GroupOffer,
    Note,
    Save,
    Send,
)
from trimtab_server.rollout.open_switch import Phase
from trimtab_server.rollout.record import Epoch, Record, Served, Stage, Switch
from trimtab_server.rollout.rollout import Rollout

# One layer of three experts in four slots, two slots on each of two GPUs. Group "g1" is
# worker "a" on GPU 0, in session 1, and worker "b" on GPU 1, in session 2.
GPUS = {"a": (0,), "b": (1,)}
MEMBERS = {worker: Member(1, gpus) for worker, gpus in GPUS.items()}
OLD, NEW, OTHER = (placement_of([[0, 1, 2, last]], 3, 2) for last in range(3))
BASE, FIRST, SECOND = (Version(1, generation) for generation in range(3))
OFFER = GroupOffer(FIRST, BASE, OLD, NEW)
EPOCH_OPENED = history.EpochOpened(1, "g1", MEMBERS, OLD.digest, OLD)
COMMIT = Commit(FIRST, NEW.digest)
OPEN = Switch(FIRST, NEW, Stage.OFFERED)
HELD = Held(FIRST, HeldState.PREPARED)
FLIPPED = {"placement": NEW, "in_force": FIRST, "flipped_at": 8}


def hello(worker: str = "a", **values: Any) -> Hello:
    usual = {"group_id": "g1", "worker": worker, "incarnation": 1, "stream": 1, "placement": OLD}
    return Hello(**{**usual, "gpus": GPUS.get(worker), **values})


def joined(rollout: Rollout, number: int, worker: str = "a", **values: Any) -> list[Effect]:
    return rollout.joined(number, hello(worker, **values))


def empty() -> Rollout:
    """A rollout without any event."""
    return Rollout(Record(), num_gpus=2)


def serving(rollout: Rollout | None = None) -> Rollout:
    """Group g1 serves in epoch 1 with generation 0."""
    rollout = rollout or empty()
    joined(rollout, 1, "a")
    joined(rollout, 2, "b")
    return rollout


def offered() -> Rollout:
    """1.1 is offered."""
    rollout = serving()
    rollout.propose(NEW)
    return rollout


def committed() -> Rollout:
    """Both have prepared 1.1."""
    rollout = offered()
    answers(rollout, Prepared(FIRST, NEW.digest))
    return rollout


def aborting() -> Rollout:
    """1.1 was not prepared in time."""
    rollout = offered()
    rollout.expired(FIRST)
    return rollout


def applied() -> Rollout:
    """1.1 is in force."""
    rollout = committed()
    answers(rollout, Applied(FIRST, NEW.digest, 8))
    return rollout


def answers(rollout: Rollout, answer: Answer) -> list[Effect]:
    """Both members give this answer."""
    return [*rollout.answered(1, answer), *rollout.answered(2, answer)]


def lost(rollout: Rollout, number: int = 1) -> Rollout:
    rollout.left(number)
    return rollout


def restarted(rollout: Rollout) -> Rollout:
    return Rollout(rollout.record, num_gpus=2)


def orders(effects: list[Effect]) -> list[Any]:
    return [send.order for send in only(Send, effects)]


def only(kind: type, effects: list[Effect]) -> list[Effect]:
    return [effect for effect in effects if isinstance(effect, kind)]


def ignored(answer: Answer, worker: str | None = "a") -> list[Effect]:
    values = {"answer": type(answer).__name__, "worker": worker, "version": answer.version}
    return [Note(history.Other("ignored", values))]


def note_of(kind: str, version: Version = FIRST, **values: Any) -> Note:
    if "worker" in values and "incarnation" in values:
        values["process"] = history.Process(values.pop("worker"), values.pop("incarnation"))
    return Note(history.KINDS[kind](version=version, **values))


# P2: epochs.


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"epoch": 2 + (1 << 32)}, "epoch: 4294967298 is higher than this"),
        ({"in_force": Version(2 + (1 << 32), 0)}, "epoch: 4294967298 is higher"),
        ({"generation": 1 + (1 << 32)}, "generation: 4294967297 is higher"),
    ],
)
def test_a_worker_cannot_use_up_the_numbers(values, named):
    rollout = serving()
    before = rollout.record
    (close,) = rollout.joined(3, hello("c", group_id="g2", gpus=(0,), **values))
    assert close.final
    assert close.reason.startswith(named)
    assert rollout.record == before


def test_a_proposal_says_why_a_complete_group_has_no_epoch_yet():
    rollout = serving()
    lost(rollout, 1)
    for number, worker in enumerate("cd", start=3):
        joined(rollout, number, worker, group_id="g2", gpus=GPUS["ab"[number - 3]])
    waits = "group 'g2' waits for these sessions of other groups to end: b"
    assert rollout.blocked_reason() == waits
    rollout.left(2)
    assert rollout.blocked_reason() is None


def test_the_number_of_remembered_sessions_is_limited(monkeypatch):
    monkeypatch.setattr("trimtab_server.rollout.rollout._MAX_NEWEST", 3)
    rollout = empty()
    for number, worker in enumerate("vwxyz", start=1):
        joined(rollout, number, worker, gpus=(0,), stream=2)
        rollout.left(number)
    taken = [not only(Close, joined(rollout, 9, worker, gpus=(0,))) for worker in "vz"]
    assert taken == [True, False]


def test_an_epoch_is_durable_before_any_welcome():
    rollout = empty()
    assert joined(rollout, 1, "a") == []
    record = Record(Epoch(1, "g1", MEMBERS), BASE, OLD, last_generation=0)
    assert joined(rollout, 2, "b") == [
        Save(record),
        Note(EPOCH_OPENED),
        Send(1, Welcome(BASE, OLD.digest)),
        Send(2, Welcome(BASE, OLD.digest)),
    ]
    assert rollout.record == record


def test_one_worker_may_own_all_gpus():
    effects = joined(empty(), 1, "a", gpus=(0, 1))
    assert only(Send, effects) == [Send(1, Welcome(BASE, OLD.digest))]


def test_an_incomplete_group_gets_no_epoch():
    rollout = empty()
    assert joined(rollout, 1, "a") == []
    assert rollout.left(1) == []
    assert joined(rollout, 2, "b") == []
    assert rollout.record == Record()


def test_two_owners_of_a_gpu_raise_an_alarm_and_the_newer_may_retry():
    rollout = empty()
    joined(rollout, 1, "a")
    reason = "GPU 0 is owned by 'a' and 'b'"
    effects = joined(rollout, 2, "b", gpus=(0, 1))
    assert effects == [Alarm(reason), Close(2, reason, final=False)]
    assert rollout.record == Record()
    assert only(Save, joined(rollout, 3, "b", stream=2)) == [Save(rollout.record)]


def test_workers_with_different_placements_raise_an_alarm_and_get_no_epoch():
    rollout = empty()
    joined(rollout, 1, "a")
    (alarm,) = joined(rollout, 2, "b", placement=NEW)
    sides = f"{OLD.digest.hex()[:12]}: a; {NEW.digest.hex()[:12]}: b"
    assert alarm == Alarm(f"group 'g1': placements in force differ ({sides})", mismatch=True)
    assert rollout.record == Record()


def test_workers_that_agree_later_get_their_epoch():
    rollout = empty()
    joined(rollout, 1, "a")
    joined(rollout, 2, "b", placement=NEW)
    closed, saved, *_ = joined(rollout, 3, "b", stream=2)
    assert closed == Close(2, "a newer session of this worker began", final=True)
    assert saved == Save(rollout.record)
    assert rollout.record.in_force == BASE


def test_the_next_group_gets_the_next_epoch_with_its_placement_as_generation_0():
    rollout = applied()
    joined(rollout, 3, "a", group_id="g2", stream=2, placement=OTHER)
    joined(rollout, 4, "b", group_id="g2", stream=2, placement=OTHER)
    epoch = Epoch(2, "g2", MEMBERS, generation=1)
    assert rollout.record == Record(
        epoch,
        Version(2, 0),
        OTHER,
        last_generation=1,
        ended_groups=("g1",),
        past=(Served(BASE, OLD), Served(FIRST, NEW)),
    )


def test_an_epoch_is_higher_than_any_that_a_worker_knows():
    rollout = empty()
    joined(rollout, 1, "a", in_force=Version(7, 3))
    joined(rollout, 2, "b")
    assert rollout.record.in_force == Version(8, 0)


ARMED = Held(FIRST, HeldState.ARMED)


@pytest.mark.parametrize("first", [{"held": ARMED}, FLIPPED])
def test_a_group_that_flips_without_a_server_is_waited_for(first):
    """The store was lost after a commit. No epoch may open between the flips of two ranks."""
    rollout = empty()
    joined(rollout, 1, "a", **{"in_force": BASE, **first})
    effects = joined(rollout, 2, "b", in_force=BASE, held=ARMED)
    armed = [1, 2] if "held" in first else [2]
    assert [close.session for close in only(Close, effects)] == armed
    assert not any(close.final for close in only(Close, effects))
    assert rollout.record == Record()
    rollout.left(1)
    rollout.left(2)
    joined(rollout, 3, "a", **FLIPPED)
    assert Welcome(Version(2, 0), NEW.digest) in orders(joined(rollout, 4, "b", **FLIPPED))


@pytest.mark.parametrize("state", [HeldState.ACCEPTED, HeldState.PREPARED, HeldState.DISCARDING])
def test_a_group_that_cannot_flip_gets_a_new_epoch_if_the_store_was_lost(state):
    """A rank that does not know the commit keeps all others from flipping, forever."""
    rollout = empty()
    joined(rollout, 1, "a", in_force=BASE, held=ARMED)
    effects = joined(rollout, 2, "b", in_force=BASE, held=Held(FIRST, state))
    assert orders(effects) == [Welcome(Version(2, 0), OLD.digest)] * 2
    assert rollout.blocked_reason() == f"'a' still holds {FIRST}"
    rollout.answered(1, Discarded(FIRST))
    # Its transfer failed before it had heard of the new epoch.
    rollout.answered(2, Refused(FIRST, NEW.digest, "no room"))
    assert rollout.blocked_reason() is None


def test_a_new_group_waits_until_the_last_session_of_another_has_ended():
    rollout = serving()
    for number, worker in enumerate("cd", start=3):
        new = hello(worker, group_id="g2", gpus=(number - 3,))
        assert rollout.joined(number, new) == []
    assert rollout.left(1) == []
    saved, _, *sends = rollout.left(2)
    assert saved == Save(rollout.record)
    assert rollout.record.epoch.group_id == "g2"
    assert sends == [Send(number, Welcome(Version(2, 0), OLD.digest)) for number in (3, 4)]


def test_workers_that_move_on_to_a_new_group_leave_the_old_one():
    rollout = serving()
    reason = "a newer session of this worker began"
    assert joined(rollout, 3, "a", group_id="g2", stream=2) == [Close(1, reason, final=True)]
    closed, saved, *_ = joined(rollout, 4, "b", group_id="g2", stream=2)
    assert (closed, saved) == (Close(2, reason, final=True), Save(rollout.record))
    assert rollout.record.epoch.group_id == "g2"


def test_a_replaced_group_cannot_come_back():
    rollout = serving()
    for group_id in ("g2", "g3"):
        for number in (1, 2):
            rollout.left(number)
        for number, worker in enumerate("ab", start=1):
            joined(rollout, number, worker, group_id=group_id)
    for group_id in ("g1", "g2"):
        (closed,) = joined(restarted(rollout), 7, "c", group_id=group_id)
        assert closed == Close(
            7,
            f"group_id: another group has replaced '{group_id}'; "
            "a group that forms again needs a new group_id",
            final=True,
        )


def test_the_thousand_groups_that_ended_last_are_remembered():
    ended = tuple(f"g{number}" for number in range(1000))
    epoch = Epoch(1001, "newest", MEMBERS)
    rollout = Rollout(Record(epoch, Version(1001, 0), OLD, ended_groups=ended), 2)
    joined(rollout, 1, "a", gpus=(0, 1), group_id="next")
    assert rollout.record.ended_groups == (*ended[1:], "newest")


@pytest.mark.parametrize(
    "other",
    [
        {"worker": "c", "gpus": (0,)},
        {"worker": "a", "incarnation": 2},
        {"worker": "a", "incarnation": 0},
        {"worker": "a", "gpus": (0, 1)},
    ],
)
def test_a_serving_group_accepts_only_its_members(other):
    rollout = serving()
    before, stranger = rollout.record, hello(**{"stream": 2, **other})
    who = f"'{stranger.worker}' in incarnation {stranger.incarnation} on GPUs"
    assert rollout.joined(3, stranger) == [
        Close(
            3,
            f"group_id: 'g1' serves already, but {who} {list(stranger.gpus)} is not a member; "
            "a group that forms again needs a new group_id",
            final=True,
        )
    ]
    assert rollout.record is before
    assert rollout.blocked_reason() is None


@pytest.mark.parametrize("late", [{"incarnation": 1, "stream": 9}, {"incarnation": 2, "stream": 4}])
@pytest.mark.parametrize("gone", [False, True])
def test_an_older_session_of_a_worker_is_refused(late, gone):
    rollout = empty()
    joined(rollout, 1, "a", incarnation=2, stream=5)
    if gone:
        rollout.left(1)
    assert joined(rollout, 2, "a", **late) == [
        Close(
            2,
            f"incarnation: 'a' has begun a newer session than stream {late['stream']} "
            f"of incarnation {late['incarnation']}",
            final=True,
        )
    ]


@pytest.mark.parametrize(
    "newer", [{"incarnation": 2}, {"incarnation": 1, "stream": 2}, {"incarnation": 1, "stream": 1}]
)
def test_the_newest_session_of_a_worker_replaces_an_older_one(newer):
    rollout = empty()
    joined(rollout, 1, "a")
    closed = Close(1, "a newer session of this worker began", final=True)
    assert joined(rollout, 2, "a", **newer) == [closed]
    assert rollout.left(1) == []
    joined(rollout, 3, "b")
    assert rollout.record.epoch.members["a"].incarnation == newer["incarnation"]


def test_a_newer_stream_of_a_member_aborts_an_offer():
    rollout = offered()
    assert joined(rollout, 3, "a", stream=2, in_force=BASE) == [
        Close(1, "a newer session of this worker began", final=True),
        note_of("aborting", cause="lost", reason="the session of 'a' was lost"),
        Send(2, Abort(FIRST)),
        Send(3, Welcome(BASE, OLD.digest)),
    ]
    assert rollout.waiting_for == ("b",)


@pytest.mark.parametrize(
    ("state", "aborted"),
    [(offered, [note_of("aborted")]), (aborting, [note_of("aborted")]), (committed, [])],
)
def test_a_new_epoch_ends_the_open_switch_of_the_old_one(state, aborted):
    rollout = lost(lost(state(), 1), 2)
    joined(rollout, 3, "a", group_id="g2")
    saved, *noted, opened, to_a, to_b = joined(rollout, 4, "b", group_id="g2")
    assert saved == Save(rollout.record)
    assert rollout.record.switch is None
    assert noted == aborted
    assert isinstance(opened.event, history.EpochOpened)
    assert [to_a.order, to_b.order] == [Welcome(Version(2, 0), OLD.digest)] * 2


def test_nothing_is_offered_while_a_version_of_an_older_epoch_is_held():
    rollout = empty()
    for number, worker in enumerate("ab", start=1):
        joined(rollout, number, worker, held=Held(FIRST, HeldState.DISCARDING))
    assert rollout.answered(1, Discarded(FIRST)) == []
    assert rollout.blocked_reason() == "'b' still holds 1.1"
    assert rollout.answered(2, Discarded(FIRST)) == []
    assert rollout.blocked_reason() is None


def test_a_discard_before_the_epoch_opens_counts():
    rollout = empty()
    joined(rollout, 1, "a", held=Held(FIRST, HeldState.DISCARDING))
    assert rollout.answered(1, Discarded(FIRST)) == []
    joined(rollout, 2, "b")
    assert rollout.blocked_reason() is None


def test_answers_of_a_group_without_an_epoch_are_ignored():
    rollout = lost(offered(), 2)
    joined(rollout, 3, "b", group_id="g2", stream=2)
    answer = Refused(FIRST, NEW.digest, "no room")
    assert rollout.answered(3, answer) == ignored(answer, "b")
    assert rollout.phase is Phase.ABORTING


# P3: versions.


def test_an_offer_is_durable_before_it_is_sent_and_has_a_time_limit():
    rollout = serving()
    epoch = Epoch(1, "g1", MEMBERS)
    record = Record(epoch, BASE, OLD, last_generation=1, switch=OPEN)
    assert rollout.propose(NEW) == [
        Save(record),
        note_of("offered", digest=NEW.digest, base=BASE, placement=NEW),
        Send(1, OFFER),
        Send(2, OFFER),
        Expire(FIRST),
    ]
    assert rollout.record == record
    assert rollout.waiting_for == ("a", "b")


def test_a_generation_that_was_aborted_is_never_used_again():
    rollout = aborting()
    answers(rollout, Discarded(FIRST))
    saved, _, to_a, *_ = rollout.propose(NEW)
    assert saved.record.last_generation == 2
    assert to_a == Send(1, GroupOffer(SECOND, BASE, OLD, NEW))


def test_a_generation_that_was_offered_before_a_restart_is_never_used_again():
    rollout = serving(restarted(offered()))
    _, _, to_a, *_ = rollout.propose(NEW)
    assert to_a == Send(1, GroupOffer(SECOND, BASE, OLD, NEW))


def test_generations_go_on_from_epoch_to_epoch():
    """A rank may have contributed a generation of the previous epoch to a barrier."""
    rollout = lost(lost(applied(), 1), 2)
    for number, worker in enumerate("ab", start=3):
        joined(rollout, number, worker, group_id="g2")
    _, _, to_a, *_ = rollout.propose(NEW)
    assert to_a == Send(3, GroupOffer(Version(2, 2), Version(2, 0), OLD, NEW))


def test_a_generation_is_higher_than_any_that_a_worker_knows():
    rollout = empty()
    joined(rollout, 1, "a", in_force=Version(7, 3))
    joined(rollout, 2, "b", generation=5)
    _, _, to_a, *_ = rollout.propose(NEW)
    assert to_a == Send(1, GroupOffer(Version(8, 6), Version(8, 0), OLD, NEW))


@pytest.mark.parametrize(
    ("state", "answer"),
    [
        (serving, Accepted(FIRST, NEW.digest)),
        (serving, Prepared(FIRST, NEW.digest)),
        (serving, Discarded(FIRST)),
        (offered, Accepted(FIRST, OTHER.digest)),
        (offered, Prepared(SECOND, NEW.digest)),
        (offered, Prepared(FIRST, OTHER.digest)),
        (offered, Refused(SECOND, NEW.digest, "late")),
        (offered, Refused(FIRST, OTHER.digest, "another")),
        (offered, Discarded(SECOND)),
        (offered, Applied(FIRST, NEW.digest, 8)),
        (aborting, Prepared(FIRST, NEW.digest)),
        (aborting, Applied(FIRST, NEW.digest, 8)),
        (aborting, Discarded(SECOND)),
        (committed, Prepared(FIRST, NEW.digest)),
        (committed, Refused(FIRST, NEW.digest, "too late")),
        (committed, Applied(SECOND, NEW.digest, 8)),
        (applied, Applied(FIRST, NEW.digest, 8)),
    ],
)
def test_an_unexpected_answer_goes_to_the_history_and_has_no_effect(state, answer):
    rollout = state()
    before = rollout.record, rollout.phase, rollout.waiting_for, rollout.blocked_reason()
    assert rollout.answered(1, answer) == ignored(answer)
    assert (rollout.record, rollout.phase, rollout.waiting_for, rollout.blocked_reason()) == before


def test_an_answer_on_a_session_that_has_ended_is_ignored():
    answer = Prepared(FIRST, NEW.digest)
    assert lost(offered()).answered(1, answer) == ignored(answer, None)


def test_a_repeated_prepared_counts_once():
    rollout, answer = offered(), Prepared(FIRST, NEW.digest)
    rollout.answered(1, answer)
    assert rollout.answered(1, answer) == ignored(answer)
    assert rollout.waiting_for == ("b",)


@pytest.mark.parametrize("state", [offered, aborting, committed])
def test_accepted_changes_nothing(state):
    rollout = state()
    before = rollout.record, rollout.phase, rollout.waiting_for
    assert rollout.answered(1, Accepted(FIRST, NEW.digest)) == []
    assert (rollout.record, rollout.phase, rollout.waiting_for) == before


# P4: what may be offered.


def paused() -> Rollout:
    rollout = serving()
    rollout.pause("maintenance")
    return rollout


def draining() -> Rollout:
    rollout = serving()
    rollout.drain()
    return rollout


def diverged() -> Rollout:
    """Worker a serves with an impossible placement, and an operator resumed the deployment."""
    rollout = lost(serving())
    joined(rollout, 3, "a", placement=NEW, in_force=BASE)
    rollout.resume()
    return rollout


def holding() -> Rollout:
    """After a restart of the server, worker a holds a version that is not the open switch."""
    rollout = restarted(serving())
    joined(rollout, 1, "a", in_force=BASE, held=HELD)
    joined(rollout, 2, "b", in_force=BASE)
    return rollout


def half_applied() -> Rollout:
    rollout = committed()
    rollout.answered(1, Applied(FIRST, NEW.digest, 8))
    return rollout


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (draining, "the server is shutting down"),
        (paused, "the deployment is paused: maintenance"),
        (empty, "no group is complete yet"),
        (offered, "the switch to 1.1 is offered: waiting for a, b"),
        (aborting, "the switch to 1.1 is aborting: waiting for a, b"),
        (half_applied, "the switch to 1.1 is committed: waiting for b"),
        (lambda: lost(serving(), 2), "'b' has no session"),
        (diverged, "'a' serves with None, not 1.0"),
        (holding, "'a' still holds 1.1"),
    ],
)
def test_a_proposal_is_refused_with_the_reason_and_nothing_changes(state, reason):
    rollout = state()
    before = rollout.record
    assert rollout.blocked_reason() == reason
    with pytest.raises(FailedPreconditionError) as error:
        rollout.propose(OTHER)
    assert str(error.value) == reason
    assert rollout.record is before


# P4: commit.


def test_nothing_is_committed_before_all_have_prepared():
    rollout = offered()
    said = {"digest": NEW.digest, "worker": "b", "incarnation": 1}
    assert rollout.answered(2, Prepared(FIRST, NEW.digest)) == [note_of("prepared", **said)]
    assert rollout.phase is Phase.OFFERED
    assert rollout.waiting_for == ("a",)


def test_a_commit_is_durable_before_it_is_sent():
    rollout = offered()
    rollout.answered(2, Prepared(FIRST, NEW.digest))
    epoch, switch = Epoch(1, "g1", MEMBERS), Switch(FIRST, NEW, Stage.COMMITTED)
    record = Record(epoch, BASE, OLD, last_generation=1, switch=switch)
    assert rollout.answered(1, Prepared(FIRST, NEW.digest)) == [
        note_of("prepared", digest=NEW.digest, worker="a", incarnation=1),
        Save(record),
        note_of("committed", digest=NEW.digest),
        note_of("commit_sent", worker="a"),
        Send(1, COMMIT),
        note_of("commit_sent", worker="b"),
        Send(2, COMMIT),
    ]
    assert rollout.record == record
    assert rollout.waiting_for == ("a", "b")


@pytest.mark.parametrize(
    "event",
    [
        lambda rollout: rollout.answered(1, Refused(FIRST, NEW.digest, "no room")),
        lambda rollout: rollout.expired(FIRST),
        lambda rollout: rollout.left(1),
        lambda rollout: joined(rollout, 3, "a", stream=2, in_force=BASE, held=HELD),
        lambda rollout: rollout.pause("maintenance"),
        lambda rollout: rollout.drain(),
    ],
)
def test_nothing_aborts_a_committed_switch(event):
    rollout = committed()
    effects = event(rollout)
    assert rollout.phase is Phase.COMMITTED
    assert rollout.record.switch == Switch(FIRST, NEW, Stage.COMMITTED)
    assert [send.order for send in only(Send, effects) if isinstance(send.order, Abort)] == []
    assert [note for note in only(Note, effects) if isinstance(note.event, history.Aborting)] == []


def test_a_switch_ends_durably_when_all_have_applied_it():
    rollout = committed()
    assert rollout.answered(2, Applied(FIRST, NEW.digest, 8)) == []
    assert rollout.waiting_for == ("a",)
    epoch, past = Epoch(1, "g1", MEMBERS), (Served(BASE, OLD),)
    record = Record(epoch, FIRST, NEW, last_generation=1, past=past)
    assert rollout.answered(1, Applied(FIRST, NEW.digest, 8)) == [
        Save(record),
        note_of("applied", digest=NEW.digest),
    ]
    assert rollout.record == record


def test_the_version_applied_last_is_the_base_of_the_next_offer():
    _, _, to_a, to_b, _ = applied().propose(OTHER)
    offer = GroupOffer(SECOND, FIRST, NEW, OTHER)
    assert [to_a, to_b] == [Send(1, offer), Send(2, offer)]


# P4: abort.


def test_a_refusal_aborts_an_offer_and_says_that_the_member_holds_nothing():
    rollout = offered()
    assert rollout.answered(1, Refused(FIRST, NEW.digest, "no room")) == [
        note_of("aborting", cause="refused", reason="refused by 'a': no room"),
        Send(2, Abort(FIRST)),
    ]
    assert rollout.phase is Phase.ABORTING
    assert rollout.waiting_for == ("b",)


def test_an_expired_offer_is_aborted_and_the_event_names_the_late_members():
    rollout = offered()
    rollout.answered(1, Prepared(FIRST, NEW.digest))
    assert rollout.expired(FIRST) == [
        note_of("aborting", cause="late", reason="not prepared in time by b"),
        Send(1, Abort(FIRST)),
        Send(2, Abort(FIRST)),
    ]
    assert rollout.waiting_for == ("a", "b")


def test_a_lost_session_of_a_member_aborts_an_offer():
    rollout = offered()
    reason = "the session of 'a' was lost"
    assert rollout.left(1) == [
        note_of("aborting", cause="lost", reason=reason),
        Send(2, Abort(FIRST)),
    ]
    assert rollout.waiting_for == ("a", "b")


def test_a_pause_is_durable_and_aborts_an_offer():
    rollout = offered()
    assert rollout.pause("maintenance") == [
        Save(rollout.record),
        note_of("aborting", cause="paused", reason="paused: maintenance"),
        Send(1, Abort(FIRST)),
        Send(2, Abort(FIRST)),
    ]
    assert rollout.record.paused == "maintenance"


def test_a_drain_aborts_an_offer_and_does_not_survive_the_server():
    rollout = offered()
    assert rollout.drain() == [
        note_of("aborting", cause="drain", reason="the server is shutting down"),
        Send(1, Abort(FIRST)),
        Send(2, Abort(FIRST)),
    ]
    assert serving(restarted(rollout)).blocked_reason() is None


def test_a_lost_session_of_another_group_leaves_an_offer_alone():
    rollout = offered()
    joined(rollout, 3, "c", group_id="g2", gpus=(0,))
    assert rollout.left(3) == []
    assert rollout.phase is Phase.OFFERED


@pytest.mark.parametrize(
    ("state", "version"),
    [(serving, FIRST), (aborting, FIRST), (committed, FIRST), (applied, FIRST), (offered, SECOND)],
)
def test_a_switch_that_is_not_offered_does_not_expire(state, version):
    rollout = state()
    phase = rollout.phase
    assert rollout.expired(version) == []
    assert rollout.phase is phase


def test_a_switch_is_not_aborted_twice():
    rollout = aborting()
    assert rollout.pause("maintenance") == [Save(rollout.record)]
    assert rollout.drain() == []
    assert rollout.left(1) == []


def test_an_abort_ends_durably_when_all_have_discarded():
    rollout = aborting()
    assert rollout.answered(1, Discarded(FIRST)) == []
    assert rollout.answered(1, Discarded(FIRST)) == []
    assert rollout.waiting_for == ("b",)
    record = Record(Epoch(1, "g1", MEMBERS), BASE, OLD, last_generation=1)
    assert rollout.answered(2, Discarded(FIRST)) == [Save(record), note_of("aborted")]
    assert rollout.record == record
    assert rollout.blocked_reason() is None


def test_a_refusal_that_crosses_the_abort_counts_as_discarded():
    rollout = aborting()
    refused = Refused(FIRST, NEW.digest, "no room")
    assert answers(rollout, refused) == [Save(rollout.record), note_of("aborted")]


# P4: pause.


def test_a_pause_survives_the_server_and_the_group_until_resume():
    rollout = restarted(paused())
    for number, worker in enumerate("ab", start=1):
        joined(rollout, number, worker, group_id="g2")
    assert rollout.record.epoch.number == 2
    assert rollout.blocked_reason() == "the deployment is paused: maintenance"
    assert rollout.resume() == [Save(rollout.record)]
    assert rollout.record.paused is None
    assert rollout.blocked_reason() is None


def test_a_pin_is_durable_and_outlives_the_server_and_the_group():
    rollout = applied()
    assert rollout.pin(OLD) == [Save(rollout.record)]
    again = Rollout(rollout.record, 2)
    joined(again, 3, "a", group_id="g2", stream=2, placement=OTHER)
    joined(again, 4, "b", group_id="g2", stream=2, placement=OTHER)
    assert again.record.epoch is not None
    assert again.record.epoch.number == 2
    assert again.record.pinned is OLD
    assert again.pin(None) == [Save(again.record)]
    assert again.record.pinned is None


def test_a_group_with_the_same_placement_adds_nothing_to_the_past():
    rollout = applied()
    joined(rollout, 3, "a", group_id="g2", stream=2, placement=NEW)
    joined(rollout, 4, "b", group_id="g2", stream=2, placement=NEW)
    assert rollout.record.in_force == Version(2, 0)
    assert rollout.record.past == (Served(BASE, OLD),)


def test_the_past_keeps_16_placements_and_the_first_of_the_group():
    record, came_with = Record(in_force=BASE, placement=OLD), Served(BASE, OLD)
    # Each another one: the bits of the generation say which expert has a second slot where.
    slots = [[0, 1, *(generation >> bit & 1 for bit in range(5))] for generation in range(31)]
    for generation in range(1, 31):
        placement = placement_of([slots[generation]], 2, 1)
        version = Version(1, generation)
        past = record.followed_by(placement)
        record = replace(record, in_force=version, placement=placement, past=past)
    assert len(record.past) == 16
    assert record.past[0] == came_with
    assert [served.version.generation for served in record.past[1:]] == list(range(15, 30))


@pytest.mark.parametrize(
    ("generations", "past"),
    [
        ((NEW, OTHER, NEW, OLD), ["1.2", "1.3"]),
        # The first placement of the group always keeps generation 0.
        ((NEW, OLD, OTHER), ["1.0", "1.1"]),
    ],
)
def test_a_placement_is_in_the_past_once(generations, past):
    record = Record(in_force=BASE, placement=OLD)
    for generation, placement in enumerate(generations, 1):
        version, kept = Version(1, generation), record.followed_by(placement)
        record = replace(record, in_force=version, placement=placement, past=kept)
    assert [str(served.version) for served in record.past if served.version != BASE] == [
        each for each in past if each != "1.0"
    ]
    assert Served(BASE, OLD) in record.past


def test_a_committed_switch_goes_on_during_a_pause():
    rollout = committed()
    assert rollout.pause("maintenance") == [Save(rollout.record)]
    answers(rollout, Applied(FIRST, NEW.digest, 8))
    assert (rollout.record.in_force, rollout.record.paused) == (FIRST, "maintenance")


# P7: the flip.


def test_ranks_that_flipped_at_different_steps_raise_an_alarm_and_pause():
    rollout = committed()
    rollout.answered(1, Applied(FIRST, NEW.digest, 8))
    saved, noted, *alarmed = rollout.answered(2, Applied(FIRST, NEW.digest, 9))
    reason = "ranks flipped to 1.1 at steps {'a': 8, 'b': 9}"
    assert (saved.record.in_force, saved.record.paused) == (FIRST, None)
    assert noted == note_of("applied", digest=NEW.digest)
    assert alarmed == [Alarm(reason), Save(rollout.record)]
    assert rollout.record.paused == reason


def test_the_step_of_a_flip_is_also_known_from_a_hello():
    rollout = restarted(half_applied())
    joined(rollout, 1, "a", **FLIPPED)
    effects = joined(rollout, 2, "b", **{**FLIPPED, "flipped_at": 9})
    assert only(Alarm, effects) == [Alarm("ranks flipped to 1.1 at steps {'a': 8, 'b': 9}")]


# P8: members that come back. In each, a has lost its session, and b has not.


def test_a_member_that_comes_back_between_switches_is_welcomed():
    rollout = lost(applied())
    assert joined(rollout, 3, "a", **FLIPPED) == [Send(3, Welcome(FIRST, NEW.digest))]
    assert rollout.blocked_reason() is None


def test_an_offer_was_aborted_when_a_member_comes_back_with_it():
    rollout = lost(offered())
    effects = joined(rollout, 3, "a", in_force=BASE, held=HELD)
    assert effects == [Send(3, Welcome(BASE, OLD.digest)), Send(3, Abort(FIRST))]
    assert rollout.waiting_for == ("a", "b")


def test_a_reconnected_member_that_holds_an_aborted_version_is_told_to_discard_it():
    rollout = lost(aborting())
    held = Held(FIRST, HeldState.DISCARDING)
    effects = joined(rollout, 3, "a", in_force=BASE, held=held)
    assert effects == [Send(3, Welcome(BASE, OLD.digest)), Send(3, Abort(FIRST))]
    assert rollout.waiting_for == ("a", "b")


def test_a_reconnected_member_without_the_aborted_version_counts_as_discarded():
    rollout = lost(aborting())
    rollout.answered(2, Discarded(FIRST))
    assert joined(rollout, 3, "a", in_force=BASE) == [
        Send(3, Welcome(BASE, OLD.digest)),
        Save(rollout.record),
        note_of("aborted"),
    ]
    assert rollout.record.switch is None


@pytest.mark.parametrize("state", [HeldState.PREPARED, HeldState.ARMED])
def test_a_reconnected_member_that_holds_the_committed_version_gets_the_commit_again(state):
    rollout = lost(committed())
    assert joined(rollout, 3, "a", in_force=BASE, held=Held(FIRST, state)) == [
        Send(3, Welcome(BASE, OLD.digest)),
        note_of("commit_sent", worker="a"),
        Send(3, COMMIT),
    ]
    assert rollout.waiting_for == ("a", "b")


def test_a_member_that_comes_back_after_its_flip_has_applied():
    rollout = lost(committed())
    rollout.answered(2, Applied(FIRST, NEW.digest, 8))
    assert joined(rollout, 3, "a", **FLIPPED) == [
        Send(3, Welcome(FIRST, NEW.digest)),
        Save(rollout.record),
        note_of("applied", digest=NEW.digest),
    ]
    assert (rollout.record.in_force, rollout.blocked_reason()) == (FIRST, None)


def test_a_reconnected_member_without_the_committed_version_raises_an_alarm_and_pauses():
    rollout = lost(committed())
    reason = "'a' has lost the committed 1.1"
    assert joined(rollout, 3, "a", in_force=BASE) == [
        Send(3, Welcome(BASE, OLD.digest)),
        Alarm(reason),
        Save(rollout.record),
    ]
    assert rollout.record.paused == reason
    assert rollout.phase is Phase.COMMITTED


def test_a_reconnected_member_that_holds_an_unknown_version_is_told_to_discard_it():
    rollout = lost(serving())
    effects = joined(rollout, 3, "a", in_force=BASE, held=HELD)
    assert effects == [Send(3, Welcome(BASE, OLD.digest)), Send(3, Abort(FIRST))]
    assert rollout.blocked_reason() == "'a' still holds 1.1"
    assert rollout.answered(3, Discarded(FIRST)) == []
    assert rollout.blocked_reason() is None


def test_a_reconnected_member_that_holds_another_version_is_told_to_discard_it():
    rollout = lost(aborting())
    held = Held(Version(1, 7), HeldState.ACCEPTED)
    effects = joined(rollout, 3, "a", in_force=BASE, held=held)
    assert effects == [Send(3, Welcome(BASE, OLD.digest)), Send(3, Abort(held.version))]
    assert rollout.waiting_for == ("b",)


@pytest.mark.parametrize(
    ("state", "in_force", "placement"),
    [
        (serving, FIRST, NEW),
        (serving, BASE, NEW),
        (serving, Version(2, 0), OLD),
        (aborting, FIRST, NEW),
        (committed, FIRST, OTHER),
        (committed, SECOND, NEW),
        (applied, BASE, OLD),
        (applied, None, OLD),
    ],
)
def test_a_member_with_an_impossible_placement_raises_an_alarm_and_pauses(
    state, in_force, placement
):
    rollout = lost(state())
    reason = (
        f"'a' serves with {in_force}, digest {placement.digest.hex()[:12]}, "
        f"which is neither {rollout.record.in_force} nor a committed version"
    )
    effects = joined(rollout, 3, "a", in_force=in_force, placement=placement)
    assert effects == [Alarm(reason, mismatch=True), Save(rollout.record)]
    assert rollout.record.paused == reason


def test_a_correct_member_is_welcomed_and_the_pause_stays():
    rollout = lost(serving())
    joined(rollout, 3, "a", in_force=BASE, placement=NEW)
    _, *effects = joined(rollout, 4, "a", in_force=BASE)
    assert effects == [Send(4, Welcome(BASE, OLD.digest))]
    assert rollout.blocked_reason().startswith(
        "the deployment is paused: 'a' serves with 1.0, digest "
    )


def test_an_old_copy_of_the_store_raises_an_alarm_and_pauses_and_no_number_is_reused():
    copy = serving().record
    rollout = Rollout(copy, num_gpus=2)
    effects = joined(rollout, 3, "a", stream=2, in_force=BASE, held=ARMED, epoch=1, generation=1)
    joined(rollout, 4, "b", stream=2, in_force=BASE, held=ARMED, epoch=1, generation=5)
    reason = "generation 1, but the store ends at 0, so the store is an old copy"
    assert reason in only(Alarm, effects)[0].reason
    assert "old copy" in rollout.record.paused
    assert rollout.record.last_generation == 5


def test_a_flip_to_a_wrong_digest_raises_an_alarm_and_pauses():
    rollout = committed()
    effects = rollout.answered(1, Applied(FIRST, OTHER.digest, 8))
    assert "'a' flipped to" in only(Alarm, effects)[0].reason
    assert (rollout.phase, rollout.waiting_for) == (Phase.COMMITTED, ("a", "b"))
    assert "flipped to" in rollout.record.paused


@pytest.mark.parametrize("in_force", [None, Version(1, 5)])
def test_a_member_without_its_welcome_serves_with_generation_0(in_force):
    rollout = empty()
    for number, worker in enumerate("ab", start=1):
        joined(rollout, number, worker, in_force=in_force)
    opened = rollout.record.in_force
    effects = joined(lost(rollout), 3, "a", in_force=in_force)
    assert effects == [Send(3, Welcome(opened, OLD.digest))]
    assert rollout.blocked_reason() is None


# P8: the server's restart.


def test_after_a_restart_an_uncommitted_switch_is_aborted():
    rollout = restarted(offered())
    assert rollout.phase is Phase.ABORTING
    assert rollout.waiting_for == ("a", "b")
    effects = joined(rollout, 1, "a", in_force=BASE, held=HELD)
    assert effects == [Send(1, Welcome(BASE, OLD.digest)), Send(1, Abort(FIRST))]
    assert joined(rollout, 2, "b", in_force=BASE) == [Send(2, Welcome(BASE, OLD.digest))]
    effects = rollout.answered(1, Discarded(FIRST))
    assert effects == [Save(rollout.record), note_of("aborted")]


def test_after_a_restart_each_member_gets_the_commit_again():
    rollout = restarted(committed())
    for number, worker in enumerate("ab", start=1):
        assert joined(rollout, number, worker, in_force=BASE, held=HELD) == [
            Send(number, Welcome(BASE, OLD.digest)),
            note_of("commit_sent", worker=worker),
            Send(number, COMMIT),
        ]
    answers(rollout, Applied(FIRST, NEW.digest, 8))
    assert rollout.record.in_force == FIRST


def test_after_a_restart_members_that_have_flipped_and_those_that_have_not_are_told_apart():
    rollout = restarted(half_applied())
    assert joined(rollout, 1, "a", **FLIPPED) == [Send(1, Welcome(FIRST, NEW.digest))]
    joined(rollout, 2, "b", in_force=BASE, held=HELD)
    assert rollout.waiting_for == ("b",)
    rollout.answered(2, Applied(FIRST, NEW.digest, 8))
    assert rollout.record.in_force == FIRST


def test_after_a_restart_the_epoch_goes_on():
    rollout = restarted(applied())
    for number, worker in enumerate("ab", start=1):
        effects = joined(rollout, number, worker, **FLIPPED)
        assert effects == [Send(number, Welcome(FIRST, NEW.digest))]
    _, _, to_a, *_ = rollout.propose(OTHER)
    assert to_a == Send(1, GroupOffer(SECOND, FIRST, NEW, OTHER))


# Histories: what a restarted server found durable.


def aborted() -> Rollout:
    rollout = aborting()
    answers(rollout, Discarded(FIRST))
    return rollout


@pytest.mark.parametrize(
    ("state", "note"),
    [
        (serving, Note(EPOCH_OPENED)),
        (offered, note_of("offered", digest=NEW.digest, base=BASE, placement=NEW)),
        (aborting, note_of("offered", digest=NEW.digest, base=BASE, placement=NEW)),
        (committed, note_of("committed", digest=NEW.digest)),
        (half_applied, note_of("committed", digest=NEW.digest)),
        (aborted, note_of("aborted")),
        (applied, note_of("applied", digest=NEW.digest)),
    ],
)
def test_a_server_that_starts_repeats_the_last_durable_event(state, note):
    assert restarted(state()).started() == [Note(history.Again(note.event))]


def test_a_server_without_a_record_repeats_no_event():
    assert empty().started() == []
