"""Engines that switch by themselves: both kinds of sessions, against a real server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.client.harness import engine_session
from tests.servers import ServerProcess
from trimtab_client import (
    DeploymentSpec,
    EngineOptions,
    FailedPreconditionError,
    InvalidArgumentError,
    Mode,
    Placement,
    Policy,
    Reason,
    SwitchedBy,
    Topology,
    TrimtabError,
    UnavailableError,
    Version,
)

TOPOLOGY = Topology(num_replicas=12, num_gpus=4)
FIRST = Placement.untouched(3, 8, 12, 4)
LOAD = np.random.default_rng(0).gamma(0.5, 1000.0, (3, 8)).astype(np.int64)


@pytest.fixture
def options(request: pytest.FixtureRequest) -> EngineOptions:
    name = request.node.name
    return EngineOptions(deployment=name, topology=TOPOLOGY, bytes_per_expert=100, model="tiny")


@pytest.fixture
def connected(connect: Callable[..., Any], often: ServerProcess) -> Any:
    return connect(often.address)


@pytest.fixture
def session(connected: Any, options: EngineOptions) -> Any:
    """A session of a deployment whose policy is active."""
    shape = options.deployment, 3, 8, TOPOLOGY
    spec = DeploymentSpec(*shape, model="tiny", switched_by=SwitchedBy.ENGINE)
    connected.create_deployment(spec, Policy(mode=Mode.ACTIVE))
    return engine_session(connected, options)


def test_an_engine_follows_the_answers_and_operators_see_it(session, connected, options):
    answer = session.rebalance(LOAD, FIRST, 100, step_seconds=0.05)
    assert answer.decision.reason is Reason.IMPROVED
    assert answer.decision.imbalance_after < answer.decision.imbalance_before
    assert (answer.in_force, answer.version) == (Version(1, 0), Version(1, 1))
    assert answer.moves == answer.decision.moves > 0
    placement, answer = answer.placement, session.rebalance(LOAD, answer.placement, 100)
    assert answer.in_force == Version(1, 1)
    while answer.placement is not None:
        placement = answer.placement
        answer = session.rebalance(LOAD, placement, 100)
    assert (answer.version, answer.moves) == (None, 0)
    assert answer.kept_because == answer.decision.reason.value

    deployment = connected.get_deployment(options.deployment)
    assert deployment.spec == DeploymentSpec(
        options.deployment, 3, 8, TOPOLOGY, "tiny", switched_by=SwitchedBy.ENGINE
    )
    assert deployment.status.in_force == answer.in_force
    assert connected.get_placement(options.deployment).placement == placement
    assert [worker.gpus for worker in deployment.status.workers] == [(0, 1, 2, 3)]


def test_a_pin_comes_with_the_next_answer(connected, options):
    session = engine_session(connected, options)
    connected.create_deployment(
        DeploymentSpec(options.deployment, 3, 8, TOPOLOGY, switched_by=SwitchedBy.ENGINE),
        Policy(mode=Mode.OFF),
    )
    assert session.rebalance(LOAD, FIRST, 100).kept_because == "the policy is off"
    other = Placement.of(FIRST.phy2log[:, ::-1], 8, 4)
    connected.pin(options.deployment, other)
    answer = session.rebalance(LOAD, FIRST, 100)
    assert (answer.placement, answer.decision) == (other, None)
    rows = other.phy2log
    assert session.report_layers([0, 2], rows[[0, 2]]) == Version(1, 0)
    assert session.report_layers([1], rows[[1]].tolist()) == answer.version


def test_counts_of_slots_are_those_of_the_placement_given(connected, options):
    """Slots of either placement count for the experts that they had."""
    session = engine_session(connected, options)
    other = Placement.of(FIRST.phy2log[:, ::-1], 8, 4)
    for placement in (FIRST, other):
        hot = placement.phy2log[0, 0]
        session.rebalance(1000 * (placement.phy2log == hot), placement, 100, per_slot=True)
        hot_LE = np.zeros((3, 8))
        hot_LE[:, hot] = 1
        status = connected.get_deployment(options.deployment).status
        expected = placement.balance(hot_LE).imbalance.mean()
        assert status.balance.predicted.mean == pytest.approx(expected)


def test_counts_of_slots_tell_how_replicas_share_their_expert(connected, options):
    session = engine_session(connected, options)
    one_slot_LR = np.zeros((3, 12), np.int64)
    one_slot_LR[:, 0] = 1000  # its expert has another slot, which gets nothing
    session.rebalance(one_slot_LR, FIRST, 100, per_slot=True)
    status = connected.get_deployment(options.deployment).status
    assert status.balance.predicted.mean == pytest.approx(4.0)


def test_a_call_that_failed_is_made_up_for_by_the_next(session, connect, options):
    nowhere = engine_session(connect("127.0.0.1:1"), options)
    with pytest.raises(UnavailableError):
        nowhere.rebalance(LOAD, FIRST, 100)
    session.rebalance(LOAD, FIRST, 100, step_seconds=0.05)
    with pytest.raises(TrimtabError):
        session.rebalance(LOAD, FIRST, 100, timeout=1e-9)
    answer = session.rebalance(LOAD, FIRST, 100, step_seconds=0.05)
    assert answer.decision.step == 299


def test_a_warm_up_is_forgotten(session):
    session.rebalance(LOAD * 1000, FIRST, 100, step_seconds=0.05)
    session.forget_load()
    even = np.full_like(LOAD, 10**6)
    answer = session.rebalance(np.zeros_like(LOAD), FIRST, 100, step_seconds=0.05)
    assert (answer.placement, answer.decision.reason) == (None, Reason.NO_LOAD)
    balanced = FIRST.balance(even).imbalance.mean()
    answer = session.rebalance(even, FIRST, 100, step_seconds=0.05)
    assert answer.decision.imbalance_before == pytest.approx(balanced)


def test_an_observing_engine_gets_no_placement(session, connected, options):
    observer = engine_session(connected, replace(options, observes=True))
    answer = observer.rebalance(LOAD, FIRST, 100, step_seconds=0.05)
    assert (answer.placement, answer.decision.mode) == (None, Mode.SHADOW)
    assert answer.decision.moves > 0


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        ((LOAD, Placement.untouched(3, 8, 8, 4), 1), "placement: "),
        ((LOAD, FIRST, 0), r"steps: 0 is not in \[1"),
        ((LOAD[:, :7], FIRST, 1), r"counts: shape \(3, 7\) is not \[L, E\]"),
        ((-LOAD, FIRST, 1), r"counts\[0, 0\]: -\d+ is negative"),
        ((LOAD.astype(float), FIRST, 1), "counts: dtype float64 is not an integer type"),
    ],
)
def test_what_cannot_be_is_refused_before_it_is_sent(connected, options, call, complaint):
    session = engine_session(connected, options)
    with pytest.raises(InvalidArgumentError, match=complaint):
        session.rebalance(*call)
    assert options.deployment not in {each.spec.name for each in connected.deployments()}


def test_layers_of_a_process_that_has_not_called_are_refused(connected, options):
    engine_session(connected, options).rebalance(LOAD, FIRST, 1)
    other = engine_session(connected, replace(options, incarnation=options.incarnation + 1))
    with pytest.raises(FailedPreconditionError, match="incarnation"):
        other.report_layers([0], FIRST.phy2log[[0]])


@pytest.mark.parametrize(
    ("field", "value"),
    [("deployment", ""), ("bytes_per_expert", 0), ("incarnation", -1), ("first_layer", 2**32)],
)
def test_options_out_of_their_range_are_named(options, field, value):
    with pytest.raises(InvalidArgumentError, match=field):
        replace(options, **{field: value})
