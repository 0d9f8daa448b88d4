"""Epochs, by examples for each part of rule P2 of PROTOCOL.md."""

from __future__ import annotations

import pytest

from tests.rollout import scene
from tests.rollout.scene import BASE, FIRST, FLIPPED, NEW, OLD, OTHER
from trimtab_protocol import history, messages
from trimtab_protocol.version import Version
from trimtab_server.rollout.effects import Alarm, Close, Note, Save
from trimtab_server.rollout.open_switch import Phase
from trimtab_server.rollout.record import Epoch, Origin, Record, Served

NEWER = "a newer session of this worker began"


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"epoch": 2 + (1 << 32)}, "epoch: 4294967298 is higher than this"),
        ({"in_force": Version(2 + (1 << 32), 0)}, "epoch: 4294967298 is higher"),
        ({"generation": 1 + (1 << 32)}, "generation: 4294967297 is higher"),
    ],
)
def test_a_worker_cannot_use_up_the_numbers(values, named):
    rollout = scene.serving()
    before = rollout.record
    (close,) = rollout.join(3, "c", group_id="g2", gpus=(0,), **values)
    assert close.final
    assert close.reason.startswith(named)
    assert rollout.record == before


def test_the_number_of_remembered_sessions_is_limited(monkeypatch):
    monkeypatch.setattr("trimtab_server.rollout.rollout._MAX_NEWEST", 3)
    rollout = scene.empty()
    for number, worker in enumerate("vwxyz", start=1):
        rollout.join(number, worker, gpus=(0,), stream=2)
        rollout.left(number)
    taken = [not scene.only(Close, rollout.join(9, worker, gpus=(0,))) for worker in "vz"]
    assert taken == [True, False]


def test_an_epoch_needs_all_gpus_at_once_and_is_durable_before_any_welcome():
    rollout = scene.empty()
    assert rollout.join(1, "a") == []
    assert rollout.left(1) == []
    assert rollout.join(2, "b") == []
    assert rollout.record == Record()
    record = Record(
        Epoch(1, "g1", scene.MEMBERS), BASE, OLD, last_generation=0, origin=Origin.STARTED
    )
    opened = Note(history.EpochOpened(1, "g1", scene.MEMBERS, OLD.digest, OLD))
    assert rollout.join(3, "a") == [Save(record), opened, scene.welcome(3), scene.welcome(2)]
    assert rollout.record == record


def test_two_owners_of_a_gpu_raise_an_alarm_and_the_newer_may_retry():
    rollout = scene.empty()
    rollout.join(1, "a")
    reason = "GPU 0 is owned by 'a' and 'b'"
    effects = rollout.join(2, "b", gpus=(0, 1))
    assert effects == [Alarm(reason), Close(2, reason, final=False)]
    assert rollout.record == Record()
    assert scene.only(Save, rollout.join(3, "b", stream=2)) == [Save(rollout.record)]


def test_workers_with_different_placements_raise_an_alarm_and_get_no_epoch_until_they_agree():
    rollout = scene.empty()
    rollout.join(1, "a")
    sides = f"{OLD.digest.hex()[:12]}: a; {NEW.digest.hex()[:12]}: b"
    alarm = Alarm(f"group 'g1': placements in force differ ({sides})", mismatch=True)
    assert rollout.join(2, "b", placement=NEW) == [alarm]
    assert rollout.record == Record()
    closed, saved, *_ = rollout.join(3, "b", stream=2)
    assert (closed, saved) == (Close(2, NEWER, final=True), Save(rollout.record))
    assert rollout.record.in_force == BASE


def test_the_next_group_gets_the_next_epoch_with_its_placement_as_generation_0():
    rollout = scene.applied()
    left_a, left_b, saved, *_ = rollout.join_both(3, group_id="g2", stream=2, placement=OTHER)
    assert [left_a, left_b] == [Close(number, NEWER, final=True) for number in (1, 2)]
    assert saved == Save(rollout.record)
    epoch = Epoch(2, "g2", scene.MEMBERS, generation=1)
    assert rollout.record == Record(
        epoch,
        Version(2, 0),
        OTHER,
        last_generation=1,
        ended_groups=("g1",),
        past=(scene.STARTED_WITH, Served(FIRST, NEW)),
        origin=Origin.STARTED,
    )


@pytest.mark.parametrize("first", [{"held": scene.ARMED}, FLIPPED])
def test_a_group_that_flips_without_a_server_is_waited_for(first):
    """The store was lost after a commit. No epoch may open between the flips of two ranks."""
    rollout = scene.empty()
    rollout.join(1, "a", **{"in_force": BASE, **first})
    closes = scene.only(Close, rollout.join(2, "b", in_force=BASE, held=scene.ARMED))
    assert [close.session for close in closes] == ([1, 2] if "held" in first else [2])
    assert not any(close.final for close in closes)
    assert rollout.record == Record()
    rollout.without(1, 2)
    welcome = messages.Welcome(Version(2, 0), NEW.digest)
    assert welcome in scene.orders(rollout.join_both(3, **FLIPPED))


@pytest.mark.parametrize("state", ["ACCEPTED", "PREPARED", "DISCARDING"])
def test_a_group_that_cannot_flip_gets_a_new_epoch_if_the_store_was_lost(state):
    """A rank that does not know the commit keeps all others from flipping, forever."""
    rollout = scene.empty()
    rollout.join(1, "a", in_force=BASE, held=scene.ARMED)
    held = messages.Held(FIRST, messages.HeldState[state])
    effects = rollout.join(2, "b", in_force=BASE, held=held)
    assert scene.orders(effects) == [messages.Welcome(Version(2, 0), OLD.digest)] * 2
    assert rollout.blocked_reason() == "'a' still holds 1.1"
    rollout.answered(1, scene.DISCARDED)
    # Its transfer failed before it had heard of the new epoch.
    rollout.answered(2, scene.REFUSED)
    assert rollout.blocked_reason() is None


def test_a_new_group_waits_until_the_last_session_of_another_has_ended():
    rollout = scene.serving()
    for number, worker in enumerate("cd", start=3):
        assert rollout.join(number, worker, group_id="g2", gpus=(number - 3,)) == []
    assert rollout.left(1) == []
    waits = "group 'g2' waits for these sessions of other groups to end: b"
    assert rollout.blocked_reason() == waits
    saved, _, *sends = rollout.left(2)
    assert saved == Save(rollout.record)
    assert rollout.record.epoch.group_id == "g2"
    assert sends == [scene.welcome(number, Version(2, 0), OLD) for number in (3, 4)]
    assert rollout.blocked_reason() is None


def test_a_replaced_group_cannot_come_back():
    rollout = scene.serving()
    for group_id in ("g2", "g3"):
        rollout.without(1, 2).join_both(group_id=group_id)
    for group_id in ("g1", "g2"):
        reason = (
            f"group_id: another group has replaced '{group_id}'; "
            "a group that forms again needs a new group_id"
        )
        closed = rollout.restarted().join(7, "c", group_id=group_id)
        assert closed == [Close(7, reason, final=True)]


def test_the_thousand_groups_that_ended_last_are_remembered():
    ended = tuple(f"g{number}" for number in range(1000))
    epoch = Epoch(1001, "newest", scene.MEMBERS)
    rollout = scene.Example(Record(epoch, Version(1001, 0), OLD, ended_groups=ended), 2)
    rollout.join(1, "a", gpus=(0, 1), group_id="next")
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
    rollout = scene.serving()
    before, stranger = rollout.record, scene.hello(**{"stream": 2, **other})
    reason = (
        f"group_id: 'g1' serves already, but '{stranger.worker}' in incarnation "
        f"{stranger.incarnation} on GPUs {list(stranger.gpus)} is not a member; "
        "a group that forms again needs a new group_id"
    )
    assert rollout.joined(3, stranger) == [Close(3, reason, final=True)]
    assert rollout.record is before
    assert rollout.blocked_reason() is None


@pytest.mark.parametrize("late", [{"incarnation": 1, "stream": 9}, {"incarnation": 2, "stream": 4}])
@pytest.mark.parametrize("gone", [False, True])
def test_an_older_session_of_a_worker_is_refused(late, gone):
    rollout = scene.empty()
    rollout.join(1, "a", incarnation=2, stream=5)
    if gone:
        rollout.left(1)
    reason = (
        f"incarnation: 'a' has begun a newer session than stream {late['stream']} "
        f"of incarnation {late['incarnation']}"
    )
    assert rollout.join(2, "a", **late) == [Close(2, reason, final=True)]


@pytest.mark.parametrize(
    "newer", [{"incarnation": 2}, {"incarnation": 1, "stream": 2}, {"incarnation": 1, "stream": 1}]
)
def test_the_newest_session_of_a_worker_replaces_an_older_one(newer):
    rollout = scene.empty()
    rollout.join(1, "a")
    assert rollout.join(2, "a", **newer) == [Close(1, NEWER, final=True)]
    assert rollout.left(1) == []
    rollout.join(3, "b")
    assert rollout.record.epoch.members["a"].incarnation == newer["incarnation"]


def test_a_newer_stream_of_a_member_aborts_an_offer():
    rollout = scene.offered()
    assert rollout.join(3, "a", stream=2, in_force=BASE) == [
        Close(1, NEWER, final=True),
        *scene.abort("lost", "the session of 'a' was lost", 2),
        scene.welcome(3),
    ]
    assert rollout.waiting_for == ("b",)


@pytest.mark.parametrize(
    ("state", "noted"), [(scene.offered, 1), (scene.aborting, 1), (scene.committed, 0)]
)
def test_a_new_epoch_ends_the_open_switch_of_the_old_one(state, noted):
    rollout = state().without(1, 2)
    saved, *aborted, opened, to_a, to_b = rollout.join_both(3, group_id="g2")
    assert saved == Save(rollout.record)
    assert rollout.record.switch is None
    assert aborted == [scene.note_of("aborted")] * noted
    assert isinstance(opened.event, history.EpochOpened)
    assert [to_a.order, to_b.order] == [messages.Welcome(Version(2, 0), OLD.digest)] * 2


def test_nothing_is_offered_while_a_version_of_an_older_epoch_is_held():
    rollout = scene.empty()
    rollout.join(1, "a", held=scene.DISCARDING)
    assert rollout.answered(1, scene.DISCARDED) == []
    rollout.join(2, "b", held=scene.DISCARDING)
    assert rollout.blocked_reason() == "'b' still holds 1.1"
    assert rollout.answered(2, scene.DISCARDED) == []
    assert rollout.blocked_reason() is None


def test_answers_of_a_group_without_an_epoch_are_ignored():
    rollout = scene.offered().without(2)
    rollout.join(3, "b", group_id="g2", stream=2)
    assert rollout.answered(3, scene.REFUSED) == scene.ignored(scene.REFUSED, "b")
    assert rollout.phase is Phase.ABORTING
