"""The worker's side of the switch, by examples for each rule of PROTOCOL.md that it keeps."""

from __future__ import annotations

from operator import methodcaller
from typing import Any

import pytest

from tests.rollout.world import bare_offer
from trimtab_client.placement import Placement
from trimtab_client.worker.switch import Complain, Discard, Effect, Flip, Prepare, WorkerSwitch
from trimtab_protocol import messages
from trimtab_protocol.history import Flipped, InForce, Process
from trimtab_protocol.messages import Abort, Commit, Held, HeldState, Welcome
from trimtab_protocol.version import Version

# One layer of three experts in four slots, two slots on each of two GPUs. The worker is "a"
# of group "g1", owns GPU 0, and is on stream 1 of a server whose term is 1.
OLD, NEW, OTHER = (Placement.of([[0, 1, 2, last]], 3, 2) for last in range(3))
BASE, FIRST, SECOND = (Version(1, generation) for generation in range(3))
NEXT = Version(2, 0)
WORKER = Process("a", 4)
ACCEPTED, PREPARED, ARMED, DISCARDING = HeldState

# Orders.
WELCOME = Welcome(BASE, OLD.digest)
OFFER = bare_offer(FIRST, BASE, OLD, NEW)
ANOTHER = bare_offer(SECOND, BASE, OLD, OTHER)
NEXT_OFFER = bare_offer(SECOND, FIRST, NEW, OTHER)
COMMIT = Commit(FIRST, NEW.digest)
ABORT = Abort(FIRST)
NEW_EPOCH = Welcome(NEXT, OLD.digest)

# Events of the engine.
ENDS = methodcaller("prepared", FIRST)
FAILS = methodcaller("prepared", FIRST, "no room")
FLIPS = methodcaller("flipped", 8)
CONTRIBUTES = methodcaller("contribute")
NONE_READY, ALL_ACCEPTED, ALL_ARMED = (
    methodcaller("agreed", *result) for result in ((0, 0), (1, 0), (1, 1))
)
NEW_GROUP = methodcaller("regroup", "g2", OLD)

# Effects.
ACCEPTS = messages.Accepted(FIRST, NEW.digest)
ACCEPTS_ANOTHER = messages.Accepted(SECOND, OTHER.digest)
HAS_PREPARED = messages.Prepared(FIRST, NEW.digest)
HAS_APPLIED = messages.Applied(FIRST, NEW.digest, 8)
HAS_DISCARDED = messages.Discarded(FIRST)
REFUSES = messages.Refused(FIRST, NEW.digest, "no room")
HOLDS_ANOTHER = messages.Refused(SECOND, OTHER.digest, "the worker already holds 1.1")
STARTS, DISCARDS = Prepare(OFFER), Discard(OFFER)
DROPS = [DISCARDS, HAS_DISCARDED]
HAS_FLIPPED = Flipped(WORKER, FIRST, NEW.digest, 8)


def do(switch: WorkerSwitch, event: Any, *, stream: int = 1, term: int = 1) -> Any:
    """The effects of an order of the server, or of an event of the engine."""
    return event(switch) if callable(event) else switch.ordered(stream, term, event)


def after(before: WorkerSwitch, *events: Any) -> WorkerSwitch:
    for event in events:
        do(before, event)
    return before


def held(switch: WorkerSwitch) -> HeldState | None:
    """What the next Hello, on a new stream, says of version 1.1."""
    said = switch.connected(2).held
    assert said is None or said.version == FIRST
    return said and said.state


# States.


def started(*, collective: bool = False, stream: int | None = 1) -> WorkerSwitch:
    """A process that has just started."""
    switch = WorkerSwitch(
        group_id="g1", worker="a", incarnation=4, gpus=(0,), placement=OLD, collective=collective
    )
    if stream is not None:
        switch.connected(stream)
    return switch


def stable() -> WorkerSwitch:
    """The worker serves with 1.0."""
    return after(started(), WELCOME)


def collective() -> WorkerSwitch:
    """The same, with collective transfers."""
    return after(started(collective=True), WELCOME)


def accepted() -> WorkerSwitch:
    """The worker has accepted 1.1, and its transfer runs."""
    return after(stable(), OFFER)


def waiting() -> WorkerSwitch:
    """The worker has accepted 1.1, and its collective transfer has not started."""
    return after(collective(), OFFER)


def contributed() -> WorkerSwitch:
    """The worker has told the barrier that it is ready for the collective transfer of 1.1."""
    return after(waiting(), CONTRIBUTES)


def aborted_meanwhile() -> WorkerSwitch:
    """1.1 was aborted after that."""
    return after(contributed(), ABORT)


def transferring() -> WorkerSwitch:
    """The collective transfer of 1.1 runs."""
    return after(contributed(), ALL_ACCEPTED)


def prepared() -> WorkerSwitch:
    """1.1 is in staging."""
    return after(accepted(), ENDS)


def armed() -> WorkerSwitch:
    """The commit of 1.1 has come."""
    return after(prepared(), COMMIT)


def flipping() -> WorkerSwitch:
    """All have armed 1.1, and the engine flips."""
    return after(armed(), ALL_ARMED)


def flipped() -> WorkerSwitch:
    """The worker serves with 1.1, from step 8 on."""
    return after(flipping(), FLIPS)


def discarding() -> WorkerSwitch:
    """1.1 was aborted while its transfer ran."""
    return after(accepted(), ABORT)


HELD = {
    started: None,
    stable: None,
    collective: None,
    accepted: ACCEPTED,
    waiting: ACCEPTED,
    contributed: ACCEPTED,
    aborted_meanwhile: DISCARDING,
    transferring: ACCEPTED,
    prepared: PREPARED,
    armed: ARMED,
    flipping: ARMED,
    flipped: None,
    discarding: DISCARDING,
}
"""What a Hello says of 1.1 in each state: rule P8."""


def test_a_hello_has_the_held_version_and_the_one_in_force() -> None:
    for state, expected in HELD.items():
        hello = state().connected(2)
        assert (hello.stream, hello.held) == (2, expected and Held(FIRST, expected)), state
        version, placement, step = (
            (FIRST, NEW, 8) if state is flipped else (None if state is started else BASE, OLD, None)
        )
        seen = (hello.in_force, hello.placement, hello.flipped_at)
        assert seen == (version, placement, step), state


# Rules P2, P5, P6 and P7: what an event does in a state, and what a Hello says of 1.1 after it.


def unchanged(states: list[Any], events: list[Any], effects: list[Effect]) -> list[Any]:
    """In each of these states each of these events has the same effects, and changes nothing."""
    return [(state, event, effects, HELD[state]) for state in states for event in events]


OFFERS = [
    (stable, OFFER, [ACCEPTS, STARTS], ACCEPTED),
    (collective, OFFER, [ACCEPTS], ACCEPTED),
    *unchanged([accepted, waiting, contributed, transferring], [OFFER], [ACCEPTS]),
    *unchanged([prepared, armed, flipping], [OFFER], [HAS_PREPARED]),
    *unchanged([discarding, flipped], [OFFER], []),
    *unchanged([accepted, prepared, armed, flipping, discarding], [ANOTHER], [HOLDS_ANOTHER]),
]
TRANSFERS = [
    (accepted, ENDS, [HAS_PREPARED], PREPARED),
    (transferring, ENDS, [HAS_PREPARED], PREPARED),
    (accepted, FAILS, [DISCARDS, REFUSES], None),
    (transferring, FAILS, [DISCARDS, REFUSES], None),
    (discarding, ENDS, DROPS, None),
    (discarding, FAILS, DROPS, None),
    *unchanged([stable, contributed, prepared, armed, flipped], [ENDS, FAILS], []),
    *unchanged([accepted], [methodcaller("prepared", SECOND)], []),
]
COMMITS = [
    (prepared, COMMIT, [], ARMED),
    *unchanged([armed, flipping], [COMMIT], []),
    *unchanged([flipped], [COMMIT], [HAS_APPLIED]),
]
ABORTS = [
    (prepared, ABORT, DROPS, None),
    (waiting, ABORT, DROPS, None),
    (accepted, ABORT, [], DISCARDING),
    (transferring, ABORT, [], DISCARDING),
    (contributed, ABORT, [], DISCARDING),
    *unchanged([discarding], [ABORT], []),
    *unchanged([stable], [ABORT], [HAS_DISCARDED]),
    *unchanged(
        [accepted, prepared, armed, discarding, flipped],
        [Abort(SECOND)],
        [messages.Discarded(SECOND)],
    ),
]
BARRIERS = [
    (contributed, ALL_ACCEPTED, [STARTS], ACCEPTED),
    *unchanged([contributed], [NONE_READY], []),
    *unchanged([waiting, transferring], [ALL_ACCEPTED], []),
    (aborted_meanwhile, ALL_ACCEPTED, [STARTS], DISCARDING),
    (aborted_meanwhile, NONE_READY, DROPS, None),
    (armed, ALL_ARMED, [Flip(OFFER)], ARMED),
    *unchanged([armed], [ALL_ACCEPTED], []),
    *unchanged([stable, accepted, prepared, discarding, flipping, flipped], [ALL_ARMED], []),
]
FLIP = [(flipping, FLIPS, [HAS_FLIPPED, HAS_APPLIED], None)]
NEW_GROUPS = [
    *((state, NEW_GROUP, [DISCARDS], None) for state in (prepared, armed, contributed)),
    *((state, NEW_GROUP, [], DISCARDING) for state in (accepted, transferring, discarding)),
]
COMPLAINTS = [
    (stable, COMMIT, "commit of 1.1, which this worker does not hold"),
    (stable, Commit(BASE, OLD.digest), "commit of 1.0, which this worker does not hold"),
    (prepared, Commit(SECOND, NEW.digest), "commit of 1.2, which this worker does not hold"),
    (prepared, Commit(FIRST, OTHER.digest), "commit of 1.1 with a digest that is not its own"),
    (flipped, Commit(SECOND, NEW.digest), "commit of 1.2, which this worker does not hold"),
    (accepted, COMMIT, "commit of 1.1, which is ACCEPTED here"),
    (discarding, COMMIT, "commit of 1.1, which is DISCARDING here"),
    (armed, ABORT, "abort of 1.1, which is ARMED here"),
    (flipping, ABORT, "abort of 1.1, which is FLIPPING here"),
    (flipped, ABORT, "abort of 1.1, which is in force here"),
    *(
        (state, FLIPS, "flipped at step 8, but no flip was due")
        for state in (stable, accepted, prepared, armed, discarding, flipped)
    ),
    *(
        (
            state,
            Welcome(NEXT, OTHER.digest),
            "epoch 2 begins with a placement that is not in force here",
        )
        for state in (stable, prepared, armed)
    ),
]


def check(switch: WorkerSwitch, event: Any, effects: list[Effect], said: HeldState | None) -> None:
    """An event has these effects; a Hello after it says this of 1.1; only a flip changes more."""
    before = switch.in_force, switch.placement
    assert do(switch, event) == effects
    assert (switch.in_force, switch.placement) == (
        (FIRST, NEW) if HAS_FLIPPED in effects else before
    )
    assert held(switch) == said


@pytest.mark.parametrize(
    ("state", "event", "effects", "said"),
    [*OFFERS, *TRANSFERS, *COMMITS, *ABORTS, *BARRIERS, *FLIP, *NEW_GROUPS],
)
def test_an_event_has_the_effects_that_belong_to_the_state(state, event, effects, said):
    check(state(), event, effects, said)


@pytest.mark.parametrize(("state", "event", "reason"), COMPLAINTS)
def test_an_event_that_cannot_be_is_reported_and_ignored(state, event, reason):
    check(state(), event, [Complain(reason)], HELD[state])


@pytest.mark.parametrize(
    ("state", "event", "effects", "said"),
    [
        (accepted, ENDS, [], PREPARED),
        (accepted, FAILS, [DISCARDS], None),
        (contributed, ALL_ACCEPTED, [STARTS], ACCEPTED),
        (discarding, ENDS, [DISCARDS], None),
        (aborted_meanwhile, NONE_READY, [DISCARDS], None),
        (armed, ALL_ARMED, [Flip(OFFER)], ARMED),
        (flipping, FLIPS, [HAS_FLIPPED], None),
    ],
)
def test_the_switch_goes_on_without_the_server(state, event, effects, said):
    """Rule P9: the same effects, and no answer."""
    switch = state()
    switch.disconnected(1)
    check(switch, event, effects, said)


@pytest.mark.parametrize(
    ("state", "brought"),
    [
        (started, (0, 0)),
        (stable, (0, 0)),
        (accepted, (1, 0)),
        (waiting, (1, 0)),
        (transferring, (1, 0)),
        (prepared, (1, 0)),
        (armed, (1, 1)),
        (flipping, (0, 0)),
        (flipped, (0, 0)),
        (discarding, (0, 0)),
        (aborted_meanwhile, (0, 0)),
    ],
)
def test_a_rank_contributes_its_accepted_and_armed_generations(state, brought):
    assert state().contribute() == brought


# P1: who speaks.


def test_the_first_hello_has_the_worker_and_its_placement():
    assert started(stream=None).connected(7) == messages.Hello("g1", "a", 4, 7, (0,), OLD)


def test_a_hello_has_the_highest_known_numbers():
    switch = stable()
    switch.ordered(1, 9, ABORT)
    switch.regroup("g2", NEW)
    hello = switch.connected(2)
    assert (hello.in_force, hello.term, hello.epoch, hello.generation) == (None, 9, 1, 1)


def test_messages_of_an_older_term_are_ignored():
    switch = started()
    do(switch, WELCOME, term=5)
    assert do(switch, OFFER, term=4) == []
    assert do(switch, OFFER, term=5) == [ACCEPTS, STARTS]
    switch.connected(2)
    assert do(switch, ABORT, stream=2, term=4) == []


def test_only_messages_on_the_current_stream_count():
    switch = stable()
    switch.connected(2)
    switch.disconnected(1)
    assert do(switch, OFFER, stream=1) == []
    assert do(switch, OFFER, stream=2) == [ACCEPTS, STARTS]
    switch.disconnected(2)
    assert do(switch, ABORT, stream=2) == []


# P2: epochs.


def in_force(placement: Placement = OLD, version: Version = NEXT) -> InForce:
    return InForce(WORKER, "g1", version, placement.digest)


def test_a_welcome_puts_generation_0_in_force():
    switch = started()
    assert do(switch, WELCOME) == [in_force(version=BASE)]
    assert (switch.in_force, switch.placement) == (BASE, OLD)


@pytest.mark.parametrize("state", [stable, prepared, armed, flipped])
@pytest.mark.parametrize("version", [BASE, FIRST, Version(0, 9)])
def test_a_welcome_to_no_newer_epoch_has_no_effect(state, version):
    check(state(), Welcome(version, OLD.digest), [], HELD[state])


def test_a_new_epoch_begins_with_the_current_placement_as_generation_0():
    switch = flipped()
    assert do(switch, Welcome(NEXT, NEW.digest)) == [in_force(NEW)]
    hello = switch.connected(2)
    assert (hello.in_force, hello.placement, hello.flipped_at) == (NEXT, NEW, None)


@pytest.mark.parametrize(("state", "effects"), [(prepared, DROPS), (armed, DROPS), (accepted, [])])
def test_a_new_epoch_discards_the_held_offer_once_its_transfer_has_ended(state, effects):
    switch = state()
    assert do(switch, NEW_EPOCH) == [in_force(), *effects]
    assert effects or do(switch, ENDS) == DROPS
    assert held(switch) is None


# Offers that are refused, or ignored when they come late.


@pytest.mark.parametrize(
    "offer",
    [
        NEXT_OFFER,
        bare_offer(SECOND, FIRST, OLD, OTHER),
        bare_offer(SECOND, BASE, NEW, OTHER),
        bare_offer(Version(2, 1), NEXT, OLD, OTHER),
    ],
)
def test_an_offer_on_another_base_is_refused(offer):
    reason = f"the offer's base is {offer.base}, but 1.0 is in force here"
    assert do(stable(), offer) == [messages.Refused(offer.version, OTHER.digest, reason)]


def test_an_offer_before_the_first_epoch_is_refused_and_ignored_when_it_comes_again():
    switch = started()
    reason = "the offer's base is 1.0, but None is in force here"
    assert do(switch, OFFER) == [messages.Refused(FIRST, NEW.digest, reason)]
    do(switch, WELCOME)
    assert do(switch, OFFER) == []


@pytest.mark.parametrize(
    ("state", "event"), [(stable, ABORT), (accepted, FAILS), (stable, NEW_EPOCH)]
)
def test_an_offer_that_was_given_up_is_ignored_when_it_comes_late(state, event):
    assert do(after(state(), event), OFFER) == []


def test_an_offer_after_the_aborted_one_is_accepted():
    assert do(after(stable(), ABORT), ANOTHER) == [ACCEPTS_ANOTHER, Prepare(ANOTHER)]


def test_a_switch_that_was_applied_is_the_base_of_the_next():
    assert do(flipped(), NEXT_OFFER) == [ACCEPTS_ANOTHER, Prepare(NEXT_OFFER)]


# P6: what one result of the barrier leaves for the next.


def test_a_collective_transfer_waits_until_all_have_accepted_and_starts_once():
    switch = after(contributed(), NONE_READY, CONTRIBUTES)
    assert do(switch, ALL_ACCEPTED) == [STARTS]
    assert do(after(switch, CONTRIBUTES), ALL_ACCEPTED) == []
    assert do(switch, ENDS) == [HAS_PREPARED]
    assert do(after(switch, CONTRIBUTES), ALL_ACCEPTED) == []


def test_a_result_that_starts_nothing_is_not_waited_for_again():
    check(after(contributed(), NONE_READY), ABORT, DROPS, None)


def test_a_barrier_that_a_rank_joined_before_it_accepted_starts_nothing():
    check(after(collective(), CONTRIBUTES, OFFER), ALL_ACCEPTED, [], ACCEPTED)


def test_a_transfer_that_the_barrier_starts_after_its_abort_ends_before_it_is_discarded():
    check(after(aborted_meanwhile(), ALL_ACCEPTED), ENDS, DROPS, None)


# P5 and P7: what comes twice.


@pytest.mark.parametrize("ending", [ENDS, FAILS])
@pytest.mark.parametrize("state", [accepted, transferring])
def test_a_repeated_abort_waits_as_the_first_one_does_and_is_then_answered(state, ending):
    switch = after(state(), ABORT, ABORT)
    check(switch, ending, DROPS, None)
    assert do(switch, ABORT, stream=2) == [HAS_DISCARDED]


def test_a_commit_during_the_flip_does_not_ask_for_another():
    switch = after(flipping(), COMMIT)
    assert do(switch, ALL_ARMED) == []
    assert do(switch, FLIPS) == [HAS_FLIPPED, HAS_APPLIED]


# A new group of the engine.


@pytest.mark.parametrize(
    ("placement", "version", "step"), [(NEW, FIRST, 8), (OTHER, None, None)], ids=["same", "other"]
)
def test_a_worker_of_a_new_group_keeps_its_version_with_its_placement(placement, version, step):
    switch = flipped()
    assert switch.regroup("g2", placement) == []
    hello = switch.connected(2)
    assert (hello.group_id, hello.placement) == ("g2", placement)
    assert (hello.in_force, hello.flipped_at) == (version, step)


def test_a_worker_of_a_new_group_ignores_messages_to_the_old_one():
    assert do(after(stable(), NEW_GROUP), OFFER) == []
    switch = after(prepared(), NEW_GROUP)
    switch.connected(2)
    assert do(switch, OFFER, stream=2) == []


def test_a_new_group_lets_a_running_transfer_end_first():
    for state in (accepted, transferring, discarding):
        switch = after(state(), NEW_GROUP)
        switch.connected(2)
        assert do(switch, ENDS) == DROPS, state


def test_the_first_epoch_of_a_new_group_is_adopted():
    switch = flipped()
    switch.regroup("g2", OTHER)
    switch.connected(2)
    welcome = Welcome(NEXT, OTHER.digest)
    assert do(switch, welcome, stream=2) == [InForce(WORKER, "g2", NEXT, OTHER.digest)]
    assert (switch.in_force, switch.placement) == (NEXT, OTHER)
