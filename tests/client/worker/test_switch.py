"""The worker's side of the switch, by examples for each rule of PROTOCOL.md that it keeps."""

from __future__ import annotations

import pytest

from tests.rollout.world import bare_offer
from trimtab_client.placement import Placement
from trimtab_client.worker.switch import (
    Complain,
    Discard,
    Effect,
    Flip,
    Order,
    Prepare,
    WorkerSwitch,
)
from trimtab_protocol.history import KINDS, Process
from trimtab_protocol.messages import (
    Abort,
    Accepted,
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

# One layer of three experts in four slots, two slots on each of two GPUs. The worker is "a"
# of group "g1", owns GPU 0, and is on stream 1 of a server whose term is 1.
OLD, NEW, OTHER = (Placement.of([[0, 1, 2, last]], 3, 2) for last in range(3))
BASE, FIRST, SECOND = (Version(1, generation) for generation in range(3))
NEXT = Version(2, 0)
WELCOME = Welcome(BASE, OLD.digest)
OFFER = bare_offer(FIRST, BASE, OLD, NEW)
NEXT_OFFER = bare_offer(SECOND, FIRST, NEW, OTHER)
COMMIT = Commit(FIRST, NEW.digest)
ABORT = Abort(FIRST)
REFUSED = Refused(FIRST, NEW.digest, "no room")
NEW_EPOCH = Welcome(NEXT, OLD.digest)
ACCEPTS = Accepted(FIRST, NEW.digest)
HAS_PREPARED = Prepared(FIRST, NEW.digest)
HAS_APPLIED = Applied(FIRST, NEW.digest, 8)
HAS_DISCARDED = Discarded(FIRST)
DROPS = [Discard(OFFER), HAS_DISCARDED]


def started(*, collective: bool = False) -> WorkerSwitch:
    """A process that has just started."""
    return WorkerSwitch(
        group_id="g1",
        worker="a",
        incarnation=4,
        gpus=(0,),
        placement=OLD,
        collective=collective,
    )


def stable(*, collective: bool = False) -> WorkerSwitch:
    """The worker serves with 1.0."""
    switch = started(collective=collective)
    switch.connected(1)
    order(switch, WELCOME)
    return switch


def accepted(*, collective: bool = False) -> WorkerSwitch:
    """The worker has accepted 1.1. A collective transfer has not started; a pull runs."""
    switch = stable(collective=collective)
    order(switch, OFFER)
    return switch


def prepared() -> WorkerSwitch:
    """1.1 is in staging."""
    switch = accepted()
    switch.prepared(FIRST)
    return switch


def armed() -> WorkerSwitch:
    """The commit of 1.1 has come."""
    switch = prepared()
    order(switch, COMMIT)
    return switch


def flipping() -> WorkerSwitch:
    """All have armed 1.1, and the engine flips."""
    switch = armed()
    switch.agreed(*switch.contribute())
    return switch


def flipped() -> WorkerSwitch:
    """The worker serves with 1.1, from step 8 on."""
    switch = flipping()
    switch.flipped(8)
    return switch


def discarding() -> WorkerSwitch:
    """1.1 was aborted while its transfer ran."""
    switch = accepted()
    order(switch, ABORT)
    return switch


def contributed() -> WorkerSwitch:
    """The worker has told the barrier that it is ready for the collective transfer of 1.1."""
    switch = accepted(collective=True)
    switch.contribute()
    return switch


def transferring() -> WorkerSwitch:
    """The collective transfer of 1.1 runs."""
    switch = contributed()
    switch.agreed(1, 0)
    return switch


def order(switch: WorkerSwitch, what: Order, *, stream: int = 1, term: int = 1) -> list[Effect]:
    return switch.ordered(stream, term, what)


def held(switch: WorkerSwitch) -> Held | None:
    """The held version in the next Hello, on a new stream."""
    return switch.connected(2).held


def noted(kind: str, version: Version, placement: Placement, **values: object) -> Effect:
    process, digest = Process("a", 4), placement.digest
    return KINDS[kind](process=process, version=version, digest=digest, **values)


# P1: who speaks.


def test_the_first_hello_has_the_worker_and_its_placement():
    assert started().connected(7) == Hello(
        group_id="g1",
        worker="a",
        incarnation=4,
        stream=7,
        gpus=(0,),
        placement=OLD,
        in_force=None,
        held=None,
        flipped_at=None,
        term=0,
        epoch=0,
        generation=0,
    )


def test_a_hello_has_the_highest_known_numbers():
    switch = stable()
    switch.ordered(1, 9, ABORT)
    switch.regroup("g2", NEW)
    hello = switch.connected(2)
    assert (hello.in_force, hello.term, hello.epoch, hello.generation) == (None, 9, 1, 1)


def test_messages_of_an_older_term_are_ignored():
    switch = started()
    switch.connected(1)
    order(switch, WELCOME, term=5)
    assert order(switch, OFFER, term=4) == []
    assert order(switch, OFFER, term=5) == [ACCEPTS, Prepare(OFFER)]
    assert order(switch, COMMIT, term=4) == []


def test_terms_are_remembered_from_stream_to_stream():
    switch = stable()
    order(switch, ABORT, term=5)
    switch.connected(2)
    assert order(switch, Abort(SECOND), stream=2, term=4) == []


def test_messages_on_an_older_stream_are_ignored():
    switch = stable()
    switch.connected(2)
    assert order(switch, OFFER, stream=1) == []
    assert order(switch, OFFER, stream=2) == [ACCEPTS, Prepare(OFFER)]


def test_messages_on_a_broken_stream_are_ignored():
    switch = stable()
    switch.disconnected(1)
    assert order(switch, OFFER) == []


def test_the_end_of_an_older_stream_does_not_affect_the_current_one():
    switch = stable()
    switch.connected(2)
    switch.disconnected(1)
    assert order(switch, OFFER, stream=2) == [ACCEPTS, Prepare(OFFER)]


# P2: epochs.


def test_a_welcome_puts_generation_0_in_force():
    switch = started()
    switch.connected(1)
    assert order(switch, WELCOME) == [noted("in_force", BASE, OLD, group="g1")]
    assert (switch.in_force, switch.placement) == (BASE, OLD)


@pytest.mark.parametrize("state", [stable, prepared, armed, flipped])
@pytest.mark.parametrize("version", [BASE, FIRST, Version(0, 9)])
def test_a_welcome_to_no_newer_epoch_has_no_effect(state, version):
    switch = state()
    before = switch.in_force, switch.placement
    assert order(switch, Welcome(version, OLD.digest)) == []
    assert (switch.in_force, switch.placement) == before


def test_a_new_epoch_begins_with_the_current_placement_as_generation_0():
    switch = flipped()
    welcome = Welcome(NEXT, NEW.digest)
    assert order(switch, welcome) == [noted("in_force", NEXT, NEW, group="g1")]
    hello = switch.connected(2)
    assert (hello.in_force, hello.placement, hello.flipped_at) == (NEXT, NEW, None)


@pytest.mark.parametrize("state", [prepared, armed])
def test_a_new_epoch_discards_the_held_offer(state):
    switch = state()
    in_force = noted("in_force", NEXT, OLD, group="g1")
    assert order(switch, NEW_EPOCH) == [in_force, *DROPS]
    assert held(switch) is None


def test_a_new_epoch_lets_a_running_transfer_end_first():
    switch = accepted()
    assert order(switch, NEW_EPOCH) == [noted("in_force", NEXT, OLD, group="g1")]
    assert switch.prepared(FIRST) == DROPS


def test_an_offer_of_an_older_epoch_is_ignored():
    switch = stable()
    order(switch, NEW_EPOCH)
    assert order(switch, OFFER) == []
    assert order(switch, bare_offer(Version(1, 9), BASE, OLD, NEW)) == []


@pytest.mark.parametrize("state", [stable, prepared, armed])
def test_an_epoch_that_begins_with_another_placement_is_reported_and_ignored(state):
    switch = state()
    reason = "epoch 2 begins with a placement that is not in force here"
    assert order(switch, Welcome(NEXT, OTHER.digest)) == [Complain(reason)]
    assert switch.in_force == BASE
    assert held(switch) == held(state())


# P5: offers.


def test_an_offer_is_accepted_and_its_transfer_starts_at_once():
    assert order(stable(), OFFER) == [ACCEPTS, Prepare(OFFER)]


def test_an_offer_that_is_accepted_for_a_collective_transfer_waits_for_the_barrier():
    assert order(stable(collective=True), OFFER) == [ACCEPTS]


@pytest.mark.parametrize(
    "offer",
    [
        bare_offer(SECOND, FIRST, NEW, OTHER),
        bare_offer(SECOND, FIRST, OLD, OTHER),
        bare_offer(SECOND, BASE, NEW, OTHER),
        bare_offer(Version(2, 1), NEXT, OLD, OTHER),
    ],
)
def test_an_offer_on_another_base_is_refused(offer):
    reason = f"the offer's base is {offer.base}, but 1.0 is in force here"
    refused = Refused(offer.version, OTHER.digest, reason)
    assert order(stable(), offer) == [refused]


def test_an_offer_before_the_first_epoch_is_refused():
    switch = started()
    switch.connected(1)
    reason = "the offer's base is 1.0, but None is in force here"
    assert order(switch, OFFER) == [Refused(FIRST, NEW.digest, reason)]


@pytest.mark.parametrize("state", [accepted, prepared, armed, flipping])
def test_an_offer_while_another_is_held_is_refused(state):
    switch = state()
    refused = Refused(SECOND, OTHER.digest, "the worker already holds 1.1")
    assert order(switch, bare_offer(SECOND, BASE, OLD, OTHER)) == [refused]
    assert held(switch) == held(state())


def test_an_offer_while_another_is_being_discarded_is_refused():
    refused = Refused(SECOND, OTHER.digest, "the worker already holds 1.1")
    offer = bare_offer(SECOND, BASE, OLD, OTHER)
    assert order(discarding(), offer) == [refused]


def test_an_offer_that_was_refused_is_ignored_when_it_comes_again():
    switch = started()
    switch.connected(1)
    order(switch, OFFER)
    order(switch, WELCOME)
    assert order(switch, OFFER) == []


@pytest.mark.parametrize(
    ("state", "answers"),
    [
        (accepted, [ACCEPTS]),
        (contributed, [ACCEPTS]),
        (transferring, [ACCEPTS]),
        (prepared, [HAS_PREPARED]),
        (armed, [HAS_PREPARED]),
        (flipping, [HAS_PREPARED]),
        (discarding, []),
        (flipped, []),
    ],
)
def test_a_repeated_offer_is_answered_by_its_state(state, answers):
    switch = state()
    assert order(switch, OFFER) == answers
    assert held(switch) == held(state())


def test_a_switch_that_was_applied_is_the_base_of_the_next():
    accepts = Accepted(SECOND, OTHER.digest)
    assert order(flipped(), NEXT_OFFER) == [accepts, Prepare(NEXT_OFFER)]


# P5: transfers.


@pytest.mark.parametrize("state", [accepted, transferring])
def test_a_transfer_that_has_ended_is_answered(state):
    switch = state()
    assert switch.prepared(FIRST) == [HAS_PREPARED]
    assert held(switch) == Held(FIRST, HeldState.PREPARED)


@pytest.mark.parametrize("state", [accepted, transferring])
def test_a_transfer_that_failed_frees_staging_and_is_refused(state):
    switch = state()
    assert switch.prepared(FIRST, "no room") == [Discard(OFFER), REFUSED]
    assert held(switch) is None


def test_an_offer_whose_transfer_failed_is_ignored_when_it_comes_again():
    switch = accepted()
    switch.prepared(FIRST, "no room")
    assert order(switch, OFFER) == []


@pytest.mark.parametrize("state", [stable, prepared, armed, flipped, contributed])
def test_the_end_of_a_transfer_that_does_not_run_has_no_effect(state):
    switch = state()
    assert switch.prepared(FIRST) == []
    assert switch.prepared(FIRST, "no room") == []
    assert held(switch) == held(state())


def test_the_end_of_another_transfer_has_no_effect():
    switch = accepted()
    assert switch.prepared(SECOND) == []
    assert held(switch) == Held(FIRST, HeldState.ACCEPTED)


# P5: commits.


def test_a_commit_arms_a_prepared_offer():
    switch = prepared()
    assert order(switch, COMMIT) == []
    assert held(switch) == Held(FIRST, HeldState.ARMED)


@pytest.mark.parametrize("state", [armed, flipping])
def test_a_repeated_commit_has_no_effect(state):
    switch = state()
    assert order(switch, COMMIT) == []
    assert held(switch) == Held(FIRST, HeldState.ARMED)


def test_a_commit_during_the_flip_does_not_ask_for_another():
    switch = flipping()
    order(switch, COMMIT)
    assert switch.agreed(1, 1) == []
    assert switch.flipped(8) == [noted("flipped", FIRST, NEW, step=8), HAS_APPLIED]


def test_a_commit_after_the_flip_is_answered_again():
    assert order(flipped(), COMMIT) == [HAS_APPLIED]


@pytest.mark.parametrize(
    ("state", "commit", "reason"),
    [
        (stable, COMMIT, "commit of 1.1, which this worker does not hold"),
        (stable, Commit(BASE, OLD.digest), "commit of 1.0, which this worker does not hold"),
        (prepared, Commit(SECOND, NEW.digest), "commit of 1.2, which this worker does not hold"),
        (prepared, Commit(FIRST, OTHER.digest), "commit of 1.1 with a digest that is not its own"),
        (flipped, Commit(SECOND, NEW.digest), "commit of 1.2, which this worker does not hold"),
        (accepted, COMMIT, "commit of 1.1, which is ACCEPTED here"),
        (discarding, COMMIT, "commit of 1.1, which is DISCARDING here"),
    ],
)
def test_a_commit_of_an_unprepared_version_is_reported_and_ignored(state, commit, reason):
    switch = state()
    assert order(switch, commit) == [Complain(reason)]
    assert held(switch) == held(state())


# P5: aborts.


def test_an_abort_of_a_prepared_offer_frees_staging_at_once():
    switch = prepared()
    assert order(switch, ABORT) == DROPS
    assert held(switch) is None


@pytest.mark.parametrize("state", [accepted, transferring])
@pytest.mark.parametrize("failure", [None, "no room"])
def test_an_abort_waits_for_a_running_transfer(state, failure):
    switch = state()
    assert order(switch, ABORT) == []
    assert switch.prepared(FIRST, failure) == DROPS
    assert held(switch) is None


def test_an_abort_before_a_collective_transfer_frees_staging_at_once():
    assert order(accepted(collective=True), ABORT) == DROPS


def test_a_repeated_abort_waits_as_the_first_one_does():
    switch = discarding()
    assert order(switch, ABORT) == []
    assert switch.prepared(FIRST) == DROPS
    assert order(switch, ABORT) == [HAS_DISCARDED]


def test_an_abort_of_an_unknown_version_is_answered_and_its_late_offer_ignored():
    switch = stable()
    assert order(switch, ABORT) == [HAS_DISCARDED]
    assert order(switch, OFFER) == []


@pytest.mark.parametrize("state", [accepted, prepared, armed, discarding, flipped])
def test_an_abort_of_another_version_does_not_affect_the_held_offer(state):
    switch = state()
    assert order(switch, Abort(SECOND)) == [Discarded(SECOND)]
    assert held(switch) == held(state())


def test_an_offer_after_the_aborted_one_is_accepted():
    switch = stable()
    order(switch, ABORT)
    offer = bare_offer(SECOND, BASE, OLD, OTHER)
    assert order(switch, offer) == [Accepted(SECOND, OTHER.digest), Prepare(offer)]


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (armed, "abort of 1.1, which is ARMED here"),
        (flipping, "abort of 1.1, which is FLIPPING here"),
        (flipped, "abort of 1.1, which is in force here"),
    ],
)
def test_an_abort_of_a_committed_version_is_reported_and_ignored(state, reason):
    switch = state()
    assert order(switch, ABORT) == [Complain(reason)]
    assert (switch.in_force, held(switch)) == (state().in_force, held(state()))


# P6: the barrier.


@pytest.mark.parametrize(
    ("state", "brought"),
    [
        (started, (0, 0)),
        (stable, (0, 0)),
        (accepted, (1, 0)),
        (transferring, (1, 0)),
        (prepared, (1, 0)),
        (armed, (1, 1)),
        (flipping, (0, 0)),
        (flipped, (0, 0)),
        (discarding, (0, 0)),
    ],
)
def test_a_rank_contributes_its_accepted_and_armed_generations(state, brought):
    assert state().contribute() == brought


def test_a_collective_transfer_starts_once_all_ranks_have_accepted():
    switch = accepted(collective=True)
    assert switch.contribute() == (1, 0)
    assert switch.agreed(1, 0) == [Prepare(OFFER)]
    assert switch.prepared(FIRST) == [HAS_PREPARED]


def test_a_collective_transfer_waits_while_some_have_not_accepted():
    switch = contributed()
    assert switch.agreed(0, 0) == []
    switch.contribute()
    assert switch.agreed(1, 0) == [Prepare(OFFER)]


def test_a_collective_transfer_starts_once():
    switch = transferring()
    switch.contribute()
    assert switch.agreed(1, 0) == []
    switch.prepared(FIRST)
    switch.contribute()
    assert switch.agreed(1, 0) == []


def test_a_result_that_starts_nothing_is_not_waited_for_again():
    switch = contributed()
    switch.agreed(0, 0)
    assert order(switch, ABORT) == DROPS


def test_a_barrier_that_a_rank_joined_before_it_accepted_starts_nothing():
    switch = stable(collective=True)
    switch.contribute()
    order(switch, OFFER)
    assert switch.agreed(1, 0) == []
    assert held(switch) == Held(FIRST, HeldState.ACCEPTED)


def test_a_transfer_that_the_barrier_may_have_started_runs_to_its_end_before_it_is_discarded():
    switch = contributed()
    assert order(switch, ABORT) == []
    assert switch.agreed(1, 0) == [Prepare(OFFER)]
    assert switch.contribute() == (0, 0)
    assert switch.prepared(FIRST) == DROPS


def test_a_transfer_that_the_barrier_has_not_started_is_discarded_with_its_result():
    switch = contributed()
    assert order(switch, ABORT) == []
    assert switch.agreed(0, 0) == DROPS
    assert held(switch) is None


def test_a_rank_flips_when_all_have_armed():
    switch = armed()
    assert switch.contribute() == (1, 1)
    assert switch.agreed(1, 1) == [Flip(OFFER)]
    assert switch.agreed(1, 1) == []


def test_a_rank_does_not_flip_while_some_have_not_armed():
    switch = armed()
    assert switch.agreed(1, 0) == []
    assert held(switch) == Held(FIRST, HeldState.ARMED)
    assert (switch.in_force, switch.placement) == (BASE, OLD)


@pytest.mark.parametrize("state", [stable, accepted, prepared, discarding, flipping, flipped])
def test_a_rank_that_has_not_armed_does_not_flip(state):
    switch = state()
    assert switch.agreed(1, 1) == []
    assert held(switch) == held(state())


# P7: the flip.


def test_after_the_flip_the_new_placement_is_in_force():
    switch = flipping()
    assert (switch.in_force, switch.placement) == (BASE, OLD)
    assert switch.flipped(8) == [noted("flipped", FIRST, NEW, step=8), HAS_APPLIED]
    assert (switch.in_force, switch.placement) == (FIRST, NEW)


@pytest.mark.parametrize("state", [stable, accepted, prepared, armed, discarding, flipped])
def test_an_unexpected_flip_is_reported_and_ignored(state):
    switch = state()
    before = switch.in_force, switch.placement
    assert switch.flipped(9) == [Complain("flipped at step 9, but no flip was due")]
    assert (switch.in_force, switch.placement) == before
    assert held(switch) == held(state())


# P8: what a Hello says.


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (accepted, HeldState.ACCEPTED),
        (contributed, HeldState.ACCEPTED),
        (transferring, HeldState.ACCEPTED),
        (prepared, HeldState.PREPARED),
        (armed, HeldState.ARMED),
        (flipping, HeldState.ARMED),
        (discarding, HeldState.DISCARDING),
    ],
)
def test_a_hello_has_the_held_version_and_its_state(state, said):
    hello = state().connected(2)
    assert (hello.stream, hello.held) == (2, Held(FIRST, said))
    assert (hello.in_force, hello.placement, hello.flipped_at) == (BASE, OLD, None)


def test_a_hello_has_the_version_in_force_and_its_first_step():
    hello = flipped().connected(2)
    assert (hello.in_force, hello.placement, hello.flipped_at) == (FIRST, NEW, 8)
    assert hello.held is None


# P9: without the server.


def without_server(switch: WorkerSwitch) -> WorkerSwitch:
    switch.disconnected(1)
    return switch


def test_an_armed_version_flips_without_the_server():
    switch = without_server(armed())
    assert switch.agreed(*switch.contribute()) == [Flip(OFFER)]
    assert switch.flipped(8) == [noted("flipped", FIRST, NEW, step=8)]
    hello = switch.connected(2)
    assert (hello.in_force, hello.flipped_at) == (FIRST, 8)


def test_a_transfer_ends_without_the_server():
    switch = without_server(accepted())
    assert switch.prepared(FIRST) == []
    assert held(switch) == Held(FIRST, HeldState.PREPARED)


def test_a_transfer_fails_without_the_server():
    switch = without_server(accepted())
    assert switch.prepared(FIRST, "no room") == [Discard(OFFER)]
    assert held(switch) is None


def test_a_collective_transfer_starts_without_the_server():
    switch = without_server(accepted(collective=True))
    assert switch.agreed(*switch.contribute()) == [Prepare(OFFER)]


@pytest.mark.parametrize("collective", [False, True])
def test_staging_is_freed_without_the_server(collective):
    switch = contributed() if collective else accepted()
    order(switch, ABORT)
    without_server(switch)
    assert (switch.agreed(0, 0) if collective else switch.prepared(FIRST)) == [Discard(OFFER)]


# A new group of the engine.


def test_a_worker_of_a_new_group_keeps_its_version():
    switch = flipped()
    assert switch.regroup("g2", NEW) == []
    hello = switch.connected(2)
    assert (hello.group_id, hello.placement) == ("g2", NEW)
    assert (hello.in_force, hello.flipped_at) == (FIRST, 8)


def test_a_worker_of_a_new_group_with_another_placement_has_no_version():
    switch = flipped()
    assert switch.regroup("g2", OTHER) == []
    hello = switch.connected(2)
    assert (hello.group_id, hello.placement) == ("g2", OTHER)
    assert (hello.in_force, hello.flipped_at) == (None, None)


def test_a_worker_of_a_new_group_ignores_messages_to_the_old_one():
    switch = stable()
    switch.regroup("g2", OLD)
    assert order(switch, OFFER) == []


@pytest.mark.parametrize("state", [prepared, armed, contributed])
def test_a_new_group_discards_the_held_offer(state):
    switch = state()
    assert switch.regroup("g2", OLD) == [Discard(OFFER)]
    assert held(switch) is None


@pytest.mark.parametrize("state", [accepted, transferring, discarding])
def test_a_new_group_lets_a_running_transfer_end_first(state):
    switch = state()
    assert switch.regroup("g2", OLD) == []
    assert switch.connected(2).held == Held(FIRST, HeldState.DISCARDING)
    assert switch.prepared(FIRST) == DROPS


def test_an_offer_to_the_old_group_is_ignored_in_the_new_one():
    switch = prepared()
    switch.regroup("g2", OLD)
    switch.connected(2)
    assert order(switch, OFFER, stream=2) == []


def test_the_first_epoch_of_a_new_group_is_adopted():
    switch = flipped()
    switch.regroup("g2", OTHER)
    switch.connected(2)
    effects = order(switch, Welcome(NEXT, OTHER.digest), stream=2)
    assert effects == [noted("in_force", NEXT, OTHER, group="g2")]
    assert (switch.in_force, switch.placement) == (NEXT, OTHER)
