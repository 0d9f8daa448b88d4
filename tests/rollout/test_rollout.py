"""The server's side of the switch, by examples for rules P3, P4, P7 and P8 of PROTOCOL.md."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.rollout import scene
from tests.rollout.scene import BASE, FIRST, FLIPPED, HELD, NEW, OLD, OTHER, SECOND
from trimtab_protocol import history, messages
from trimtab_protocol.version import Version
from trimtab_server.domain.errors import FailedPreconditionError
from trimtab_server.rollout.effects import Alarm, Expire, GroupOffer, Note, Save, Send
from trimtab_server.rollout.open_switch import Phase
from trimtab_server.rollout.record import Epoch, Origin, Record, Stage, Switch
from trimtab_server.rollout.rollout import Rollout

ACCEPTED = messages.Accepted(FIRST, NEW.digest)

# P3: versions.


def test_an_offer_is_durable_before_it_is_sent_and_has_a_time_limit():
    rollout = scene.serving()
    epoch = Epoch(1, "g1", scene.MEMBERS)
    record = Record(
        epoch,
        BASE,
        OLD,
        last_generation=1,
        switch=scene.OPEN,
        origin=Origin.STARTED,
    )
    assert rollout.propose(NEW) == [
        Save(record),
        scene.note_of("offered", digest=NEW.digest, base=BASE, placement=NEW),
        Send(1, scene.OFFER),
        Send(2, scene.OFFER),
        Expire(FIRST),
    ]
    assert rollout.record == record
    assert rollout.waiting_for == ("a", "b")


def restarted_while_offered() -> Rollout:
    rollout = scene.offered().restarted()
    rollout.join_both()
    return rollout


def restarted_after_a_flip() -> Rollout:
    rollout = scene.applied().restarted()
    assert rollout.join_both(**FLIPPED) == [scene.welcome(n, FIRST, NEW) for n in (1, 2)]
    return rollout


def in_another_epoch() -> Rollout:
    """A rank may have contributed a generation of the previous epoch to a barrier."""
    rollout = scene.applied().without(1, 2)
    rollout.join_both(group_id="g2")
    return rollout


def with_higher_numbers() -> Rollout:
    """The workers know higher numbers than the server."""
    rollout = scene.empty()
    rollout.join(1, "a", in_force=Version(7, 3))
    rollout.join(2, "b", generation=5)
    return rollout


@pytest.mark.parametrize(
    ("state", "offer"),
    [
        (scene.aborted, GroupOffer(SECOND, BASE, OLD, NEW)),
        (restarted_while_offered, GroupOffer(SECOND, BASE, OLD, NEW)),
        (scene.applied, GroupOffer(SECOND, FIRST, NEW, OTHER)),
        (restarted_after_a_flip, GroupOffer(SECOND, FIRST, NEW, OTHER)),
        (in_another_epoch, GroupOffer(Version(2, 2), Version(2, 0), OLD, NEW)),
        (with_higher_numbers, GroupOffer(Version(8, 6), Version(8, 0), OLD, NEW)),
    ],
)
def test_an_offer_has_a_new_generation_and_is_based_on_the_version_in_force(state, offer):
    rollout = state()
    saved, _, to_a, to_b, _ = rollout.propose(offer.placement)
    assert saved.record.last_generation == offer.version.generation
    assert [to_a, to_b] == [Send(1, offer), Send(2, offer)]


@pytest.mark.parametrize(
    ("state", "answer"),
    [
        (scene.serving, ACCEPTED),
        (scene.serving, scene.PREPARED),
        (scene.serving, scene.DISCARDED),
        (scene.offered, messages.Accepted(FIRST, OTHER.digest)),
        (scene.offered, messages.Prepared(SECOND, NEW.digest)),
        (scene.offered, messages.Prepared(FIRST, OTHER.digest)),
        (scene.offered, messages.Refused(SECOND, NEW.digest, "late")),
        (scene.offered, messages.Refused(FIRST, OTHER.digest, "another")),
        (scene.offered, messages.Discarded(SECOND)),
        (scene.offered, scene.APPLIED),
        (scene.half_prepared, scene.PREPARED),
        (scene.aborting, scene.PREPARED),
        (scene.aborting, scene.APPLIED),
        (scene.aborting, messages.Discarded(SECOND)),
        (scene.committed, scene.PREPARED),
        (scene.committed, scene.REFUSED),
        (scene.committed, messages.Applied(SECOND, NEW.digest, 8)),
        (scene.applied, scene.APPLIED),
        # These are expected.
        (scene.offered, ACCEPTED),
        (scene.aborting, ACCEPTED),
        (scene.committed, ACCEPTED),
    ],
)
def test_an_acceptance_has_no_effect_nor_has_an_unexpected_answer_which_is_noted(state, answer):
    rollout = state()
    expected = answer == ACCEPTED and state is not scene.serving
    before = rollout.record, rollout.phase, rollout.waiting_for, rollout.blocked_reason()
    assert rollout.answered(1, answer) == ([] if expected else scene.ignored(answer))
    assert (rollout.record, rollout.phase, rollout.waiting_for, rollout.blocked_reason()) == before


def test_an_answer_on_a_session_that_has_ended_is_ignored():
    effects = scene.offered().without(1).answered(1, scene.PREPARED)
    assert effects == scene.ignored(scene.PREPARED, None)


# P4: what may be offered.


def draining() -> Rollout:
    rollout = scene.serving()
    rollout.drain()
    return rollout


def diverged() -> Rollout:
    """Worker a serves with an impossible placement, and an operator resumed the deployment."""
    rollout = scene.serving().without(1)
    rollout.join(3, "a", placement=NEW, in_force=BASE)
    rollout.resume()
    return rollout


def holding() -> Rollout:
    """After a restart of the server, worker a holds a version that is not the open switch."""
    rollout = scene.serving().restarted()
    rollout.join(1, "a", in_force=BASE, held=HELD)
    rollout.join(2, "b", in_force=BASE)
    return rollout


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (draining, "the server is shutting down"),
        (scene.paused, "the deployment is paused: maintenance"),
        (scene.empty, "no group is complete yet"),
        (scene.offered, "the switch to 1.1 is offered: waiting for a, b"),
        (scene.aborting, "the switch to 1.1 is aborting: waiting for a, b"),
        (scene.half_applied, "the switch to 1.1 is committed: waiting for b"),
        (lambda: scene.serving().without(2), "'b' has no session"),
        (
            diverged,
            "'a' serves with another placement than 1.0: its engine has to form a new group",
        ),
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


def test_a_commit_waits_until_all_have_prepared_and_is_durable_before_it_is_sent():
    rollout = scene.offered()
    said = {"digest": NEW.digest, "incarnation": 1}
    assert rollout.answered(2, scene.PREPARED) == [scene.note_of("prepared", **said, worker="b")]
    assert rollout.phase is Phase.OFFERED
    assert rollout.waiting_for == ("a",)
    switch = Switch(FIRST, NEW, Stage.COMMITTED)
    record = Record(
        Epoch(1, "g1", scene.MEMBERS),
        BASE,
        OLD,
        last_generation=1,
        switch=switch,
        origin=Origin.STARTED,
    )
    assert rollout.answered(1, scene.PREPARED) == [
        scene.note_of("prepared", **said, worker="a"),
        Save(record),
        scene.note_of("committed", digest=NEW.digest),
        scene.note_of("commit_sent", worker="a"),
        Send(1, scene.COMMIT),
        scene.note_of("commit_sent", worker="b"),
        Send(2, scene.COMMIT),
    ]
    assert rollout.record == record
    assert rollout.waiting_for == ("a", "b")


@pytest.mark.parametrize(
    "event",
    [
        lambda rollout: rollout.answered(1, scene.REFUSED),
        lambda rollout: rollout.expired(FIRST),
        lambda rollout: rollout.left(1),
        lambda rollout: rollout.join(3, "a", stream=2, in_force=BASE, held=HELD),
        lambda rollout: rollout.pause("maintenance"),
        lambda rollout: rollout.drain(),
    ],
)
def test_nothing_aborts_a_committed_switch(event):
    rollout = scene.committed()
    effects = event(rollout)
    assert rollout.phase is Phase.COMMITTED
    assert rollout.record.switch == Switch(FIRST, NEW, Stage.COMMITTED)
    assert scene.only(messages.Abort, scene.orders(effects)) == []
    events = [note.event for note in scene.only(Note, effects)]
    assert scene.only(history.Aborting, events) == []


def test_a_switch_ends_durably_when_all_have_applied_it():
    rollout = scene.committed()
    assert rollout.answered(2, scene.APPLIED) == []
    assert rollout.waiting_for == ("a",)
    epoch = Epoch(1, "g1", scene.MEMBERS)
    record = Record(epoch, FIRST, NEW, last_generation=1, past=scene.PAST)
    noted = scene.note_of("applied", digest=NEW.digest)
    assert rollout.answered(1, scene.APPLIED) == [Save(record), noted]
    assert rollout.record == record


# P4: abort.


def test_a_refusal_aborts_an_offer_and_says_that_the_member_holds_nothing():
    rollout = scene.offered()
    effects = rollout.answered(1, scene.REFUSED)
    assert effects == scene.abort("refused", "refused by 'a': no room", 2)
    assert rollout.phase is Phase.ABORTING
    assert rollout.waiting_for == ("b",)


def test_an_expired_offer_is_aborted_and_the_event_names_the_late_members():
    rollout = scene.half_prepared()
    assert rollout.expired(FIRST) == scene.abort("late", "not prepared in time by b", 1, 2)
    assert rollout.waiting_for == ("a", "b")


def test_a_lost_session_of_a_member_aborts_an_offer():
    rollout = scene.offered()
    assert rollout.left(1) == scene.abort("lost", "the session of 'a' was lost", 2)
    assert rollout.waiting_for == ("a", "b")


def test_a_pause_is_durable_and_aborts_an_offer():
    rollout = scene.offered()
    saved, *effects = rollout.pause("maintenance")
    assert saved == Save(rollout.record)
    assert effects == scene.abort("paused", "paused: maintenance", 1, 2)
    assert rollout.record.paused == "maintenance"


def test_a_drain_aborts_an_offer_and_does_not_survive_the_server():
    rollout = scene.offered()
    assert rollout.drain() == scene.abort("drain", "the server is shutting down", 1, 2)
    again = rollout.restarted()
    again.join_both()
    assert again.blocked_reason() is None


def test_a_lost_session_of_another_group_leaves_an_offer_alone():
    rollout = scene.offered()
    rollout.join(3, "c", group_id="g2", gpus=(0,))
    assert rollout.left(3) == []
    assert rollout.phase is Phase.OFFERED


@pytest.mark.parametrize(
    ("state", "version"),
    [
        *((getattr(scene, state), FIRST) for state in ("serving", "aborting", "committed")),
        (scene.applied, FIRST),
        (scene.offered, SECOND),
    ],
)
def test_a_switch_that_is_not_offered_does_not_expire(state, version):
    rollout = state()
    phase = rollout.phase
    assert rollout.expired(version) == []
    assert rollout.phase is phase


def test_a_switch_is_not_aborted_twice():
    rollout = scene.aborting()
    assert rollout.pause("maintenance") == [Save(rollout.record)]
    assert rollout.drain() == []
    assert rollout.left(1) == []


def test_an_abort_ends_durably_when_all_have_discarded():
    rollout = scene.aborting()
    assert rollout.answered(1, scene.DISCARDED) == []
    assert rollout.answered(1, scene.DISCARDED) == []
    assert rollout.waiting_for == ("b",)
    record = Record(
        Epoch(1, "g1", scene.MEMBERS),
        BASE,
        OLD,
        last_generation=1,
        origin=Origin.STARTED,
    )
    assert rollout.answered(2, scene.DISCARDED) == [Save(record), scene.note_of("aborted")]
    assert rollout.record == record
    assert rollout.blocked_reason() is None


def test_a_refusal_that_crosses_the_abort_counts_as_discarded():
    rollout = scene.aborting()
    assert rollout.answer_both(scene.REFUSED) == [Save(rollout.record), scene.note_of("aborted")]


# P4: pause.


def test_a_pause_survives_the_server_and_the_group_until_resume():
    rollout = scene.paused().restarted()
    rollout.join_both(group_id="g2")
    assert rollout.record.epoch.number == 2
    assert rollout.blocked_reason() == "the deployment is paused: maintenance"
    assert rollout.resume() == [Save(rollout.record)]
    assert rollout.record.paused is None
    assert rollout.blocked_reason() is None


def test_a_committed_switch_goes_on_during_a_pause():
    rollout = scene.committed()
    assert rollout.pause("maintenance") == [Save(rollout.record)]
    rollout.answer_both(scene.APPLIED)
    assert (rollout.record.in_force, rollout.record.paused) == (FIRST, "maintenance")


# Pins, and what can be pinned: the placements of the past.


def test_a_pin_is_durable_and_outlives_the_server_and_the_group():
    rollout = scene.applied()
    assert rollout.pin(OLD) == [Save(rollout.record)]
    again = rollout.restarted()
    again.join_both(group_id="g2", placement=OTHER)
    assert again.record.epoch.number == 2
    assert again.record.pinned is OLD
    assert again.pin(None) == [Save(again.record)]
    assert again.record.pinned is None


def test_a_group_with_the_same_placement_adds_nothing_to_the_past():
    rollout = scene.applied()
    rollout.join_both(3, group_id="g2", stream=2, placement=NEW)
    assert rollout.record.in_force == Version(2, 0)
    assert rollout.record.past == scene.PAST


# P7: the flip.


def test_ranks_that_flipped_at_different_steps_raise_an_alarm_and_pause():
    rollout = scene.half_applied()
    saved, noted, *alarmed = rollout.answered(2, replace(scene.APPLIED, step=9))
    reason = "ranks flipped to 1.1 at steps {'a': 8, 'b': 9}"
    assert (saved.record.in_force, saved.record.paused) == (FIRST, None)
    assert noted == scene.note_of("applied", digest=NEW.digest)
    assert alarmed == [Alarm(reason), Save(rollout.record)]
    assert rollout.record.paused == reason


def test_the_step_of_a_flip_is_also_known_from_a_hello():
    rollout = scene.half_applied().restarted()
    rollout.join(1, "a", **FLIPPED)
    effects = rollout.join(2, "b", **{**FLIPPED, "flipped_at": 9})
    assert scene.only(Alarm, effects) == [Alarm("ranks flipped to 1.1 at steps {'a': 8, 'b': 9}")]


def test_a_flip_to_a_wrong_digest_raises_an_alarm_and_pauses():
    rollout = scene.committed()
    effects = rollout.answered(1, messages.Applied(FIRST, OTHER.digest, 8))
    assert "'a' flipped to" in scene.only(Alarm, effects)[0].reason
    assert (rollout.phase, rollout.waiting_for) == (Phase.COMMITTED, ("a", "b"))
    assert "flipped to" in rollout.record.paused


# P8: members that come back. In each, a has lost its session, and b has not.


@pytest.mark.parametrize(
    ("state", "held", "blocked"),
    [
        # The offer was aborted when its session was lost.
        (scene.offered, HELD, "the switch to 1.1 is aborting: waiting for a, b"),
        (scene.aborting, scene.DISCARDING, "the switch to 1.1 is aborting: waiting for a, b"),
        (
            scene.aborting,
            messages.Held(Version(1, 7), messages.HeldState.ACCEPTED),
            "the switch to 1.1 is aborting: waiting for b",
        ),
        (scene.serving, HELD, "'a' still holds 1.1"),
    ],
)
def test_a_reconnected_member_that_holds_what_is_not_committed_is_told_to_discard_it(
    state, held, blocked
):
    rollout = state().without(1)
    effects = rollout.join(3, "a", in_force=BASE, held=held)
    assert effects == [scene.welcome(3), Send(3, messages.Abort(held.version))]
    assert rollout.blocked_reason() == blocked
    rollout.answered(3, messages.Discarded(held.version))
    rollout.answered(2, scene.DISCARDED)
    assert rollout.blocked_reason() is None


def test_a_reconnected_member_without_the_aborted_version_counts_as_discarded():
    rollout = scene.aborting().without(1)
    rollout.answered(2, scene.DISCARDED)
    effects = rollout.join(3, "a", in_force=BASE)
    assert effects == [scene.welcome(3), Save(rollout.record), scene.note_of("aborted")]
    assert rollout.record.switch is None


@pytest.mark.parametrize("held", [HELD, scene.ARMED])
def test_a_reconnected_member_that_holds_the_committed_version_gets_the_commit_again(held):
    rollout = scene.committed().without(1)
    effects = rollout.join(3, "a", in_force=BASE, held=held)
    sent = scene.note_of("commit_sent", worker="a")
    assert effects == [scene.welcome(3), sent, Send(3, scene.COMMIT)]
    assert rollout.waiting_for == ("a", "b")


def test_a_member_that_comes_back_after_its_flip_has_applied():
    rollout = scene.committed().without(1)
    rollout.answered(2, scene.APPLIED)
    noted = scene.note_of("applied", digest=NEW.digest)
    effects = rollout.join(3, "a", **FLIPPED)
    assert effects == [scene.welcome(3, FIRST, NEW), Save(rollout.record), noted]
    assert (rollout.record.in_force, rollout.blocked_reason()) == (FIRST, None)


def test_a_reconnected_member_without_the_committed_version_raises_an_alarm_and_pauses():
    rollout = scene.committed().without(1)
    reason = "'a' has lost the committed 1.1"
    effects = rollout.join(3, "a", in_force=BASE)
    assert effects == [scene.welcome(3), Alarm(reason), Save(rollout.record)]
    assert rollout.record.paused == reason
    assert rollout.phase is Phase.COMMITTED


@pytest.mark.parametrize(
    ("state", "in_force", "placement"),
    [
        (scene.serving, FIRST, NEW),
        (scene.serving, BASE, NEW),
        (scene.serving, Version(2, 0), OLD),
        (scene.aborting, FIRST, NEW),
        (scene.committed, FIRST, OTHER),
        (scene.committed, SECOND, NEW),
        (scene.applied, BASE, OLD),
        (scene.applied, None, OLD),
    ],
)
def test_a_member_with_an_impossible_placement_raises_an_alarm_and_pauses(
    state, in_force, placement
):
    rollout = state().without(1)
    reason = (
        f"'a' serves with {in_force}, digest {placement.digest.hex()[:12]}, "
        f"which is neither {rollout.record.in_force} nor a committed version"
    )
    effects = rollout.join(3, "a", in_force=in_force, placement=placement)
    assert effects == [Alarm(reason, mismatch=True), Save(rollout.record)]
    assert rollout.record.paused == reason


def test_a_correct_member_is_welcomed_and_the_pause_stays():
    rollout = scene.serving().without(1)
    rollout.join(3, "a", in_force=BASE, placement=NEW)
    _, *effects = rollout.join(4, "a", in_force=BASE)
    assert effects == [scene.welcome(4)]
    assert rollout.blocked_reason().startswith(
        "the deployment is paused: 'a' serves with 1.0, digest "
    )


def test_an_old_copy_of_the_store_raises_an_alarm_and_pauses_and_no_number_is_reused():
    rollout = scene.serving().restarted()
    known = {"in_force": BASE, "held": scene.ARMED, "epoch": 1}
    effects = rollout.join(3, "a", **known, generation=1)
    rollout.join(4, "b", **known, generation=5)
    reason = "generation 1, but the store ends at 0, so the store is an old copy"
    assert reason in scene.only(Alarm, effects)[0].reason
    assert "old copy" in rollout.record.paused
    assert rollout.record.last_generation == 5


@pytest.mark.parametrize("in_force", [None, Version(1, 5)])
def test_a_member_without_its_welcome_serves_with_generation_0(in_force):
    rollout = scene.empty()
    rollout.join_both(in_force=in_force)
    opened = rollout.record.in_force
    effects = rollout.without(1).join(3, "a", in_force=in_force)
    assert effects == [scene.welcome(3, opened, OLD)]
    assert rollout.blocked_reason() is None


# P8: the server's restart.


def test_after_a_restart_an_uncommitted_switch_is_aborted():
    rollout = scene.offered().restarted()
    assert rollout.phase is Phase.ABORTING
    assert rollout.waiting_for == ("a", "b")
    effects = rollout.join(1, "a", in_force=BASE, held=HELD)
    assert effects == [scene.welcome(1), Send(1, messages.Abort(FIRST))]
    assert rollout.join(2, "b", in_force=BASE) == [scene.welcome(2)]
    assert rollout.answered(1, scene.DISCARDED) == [Save(rollout.record), scene.note_of("aborted")]


def test_after_a_restart_each_member_gets_the_commit_again():
    rollout = scene.committed().restarted()
    for number, worker in enumerate("ab", start=1):
        effects = rollout.join(number, worker, in_force=BASE, held=HELD)
        sent = scene.note_of("commit_sent", worker=worker)
        assert effects == [scene.welcome(number), sent, Send(number, scene.COMMIT)]
    rollout.answer_both(scene.APPLIED)
    assert rollout.record.in_force == FIRST


def test_after_a_restart_members_that_have_flipped_and_those_that_have_not_are_told_apart():
    rollout = scene.half_applied().restarted()
    assert rollout.join(1, "a", **FLIPPED) == [scene.welcome(1, FIRST, NEW)]
    rollout.join(2, "b", in_force=BASE, held=HELD)
    assert rollout.waiting_for == ("b",)
    rollout.answered(2, scene.APPLIED)
    assert rollout.record.in_force == FIRST


# Histories: what a restarted server found durable.


@pytest.mark.parametrize(
    ("state", "events"),
    [
        (scene.empty, []),
        (scene.serving, [history.EpochOpened(1, "g1", scene.MEMBERS, OLD.digest, OLD)]),
        (scene.offered, [history.Offered(FIRST, BASE, NEW.digest, NEW)]),
        (scene.aborting, [history.Offered(FIRST, BASE, NEW.digest, NEW)]),
        (scene.committed, [history.Committed(FIRST, NEW.digest)]),
        (scene.half_applied, [history.Committed(FIRST, NEW.digest)]),
        (scene.aborted, [history.Aborted(FIRST)]),
        (scene.applied, [history.Applied(FIRST, NEW.digest)]),
    ],
)
def test_a_server_that_starts_repeats_the_last_durable_event_if_any(state, events):
    assert state().restarted().started() == [Note(history.Again(event)) for event in events]
