"""Deployments that their engine switches: what it is told, and what is taken as in force."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from tests.engine import scene
from tests.engine.engines import BY_ENGINE, Engine
from tests.engine.scene import OTHER, SKEWED, SPEC, UNTOUCHED
from trimtab_protocol.version import Version
from trimtab_server.domain.balance import imbalance, loads_with
from trimtab_server.domain.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    UnavailableError,
)
from trimtab_server.domain.placement import count_moves
from trimtab_server.domain.topology import Topology
from trimtab_server.policy.policy import Mode


def imbalance_of(placement, load_LE=SKEWED):
    return float(imbalance(loads_with(placement, load_LE)).mean())


async def test_an_engine_is_told_a_better_placement_until_there_is_none(tmp_path):
    async with scene.recorded(tmp_path, balance="active") as deployments:
        engine, answers = Engine(deployments), []
        while not answers or answers[-1].switch is not None:
            before = engine.placement
            answers.append(await engine.obeys())
            assert answers[-1].moves == count_moves(before, engine.placement)
        assert len(answers) >= 2
        first, last = answers[0], answers[-1]
        assert (first.in_force, first.switch.version) == (Version(1, 0), Version(1, 1))
        assert imbalance_of(first.switch.placement) < imbalance_of(UNTOUCHED)
        assert first.logged.decision.candidate.before == pytest.approx(imbalance_of(UNTOUCHED))
        assert (last.in_force.generation, last.moves) == (len(answers) - 1, 0)
        assert last.kept_because == last.logged.decision.reason.value
        record = engine.deployment.rollout.record
        assert record.placement == engine.placement
        assert record.switch is None
        assert engine.deployment.load().tolist() == pytest.approx(SKEWED / 100)


async def test_the_first_call_may_move_experts_since_the_engine_says_how_long_a_step_takes(
    tmp_path,
):
    async with scene.recorded(tmp_path, balance="active") as deployments:
        engine = Engine(deployments)
        assert (await engine.asks()).logged.decision.moves
        # A move of 100 s does not pay within 1000 steps of 50 ms.
        heavy = Engine(deployments, name="heavy", spec=replace(BY_ENGINE, bytes_per_expert=10**13))
        assert (await heavy.asks()).kept_because == "too_costly"


async def test_a_call_that_is_repeated_is_counted_and_planned_once(tmp_path):
    async with scene.recorded(tmp_path, balance="active") as deployments:
        engine = Engine(deployments)
        answer = await engine.asks()
        assert await engine.repeats() == answer
        assert answer == (await asyncio.gather(engine.repeats(), engine.repeats()))[1]
        deployment = engine.deployment
        assert deployment.load().tolist() == pytest.approx(SKEWED / 100)
        assert sum(deployment.status.decisions.values()) == 1
        assert deployment.rollout.record.last_generation == 1


async def test_a_caller_that_gives_up_finds_the_answer_when_it_comes_again(tmp_path):
    async with scene.recorded(tmp_path, balance="active") as deployments:
        engine = Engine(deployments)
        call = asyncio.ensure_future(engine.asks())
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert (await engine.repeats()).switch is not None
        assert sum(engine.deployment.status.decisions.values()) == 1


async def test_an_engine_that_keeps_its_placement_is_told_a_new_plan(tmp_path):
    async with scene.recorded(tmp_path, balance="active") as deployments:
        engine = Engine(deployments)
        first = await engine.asks()
        second = await engine.asks()
        assert second.switch.version == Version(1, 2)
        assert second.switch.placement == first.switch.placement
        assert engine.deployment.rollout.record.in_force == Version(1, 0)


async def test_a_placement_that_nobody_planned_is_taken_as_it_is(tmp_path):
    async with scene.recorded(tmp_path, balance="active") as deployments:
        engine = Engine(deployments)
        await engine.asks()
        engine.placement = OTHER
        answer = await engine.obeys()
        assert (answer.in_force, answer.switch.version) == (Version(2, 0), Version(2, 2))
        assert answer.logged.decision.candidate.before == pytest.approx(imbalance_of(OTHER))
        past = engine.deployment.rollout.record.past
        assert [served.placement for served in past] == [UNTOUCHED]
        assert (await engine.asks()).in_force == answer.switch.version


async def test_layers_that_were_switched_come_into_force_together(tmp_path):
    async with scene.recorded(tmp_path, balance="active") as deployments:
        engine = Engine(deployments)
        switch = (await engine.asks()).switch
        changed = (switch.placement.phy2log != UNTOUCHED.phy2log).any(1).nonzero()[0]
        assert len(changed) >= 2
        side = engine.deployment.engine
        for layer in changed:
            assert engine.deployment.rollout.record.in_force == Version(1, 0)
            in_force = await side.switched(engine.layers(switch.placement, layer))
        assert in_force == engine.deployment.rollout.record.in_force == switch.version
        engine.placement = switch.placement
        assert (await engine.asks()).in_force == switch.version


async def test_layers_that_do_not_fit_are_refused(tmp_path):
    async with scene.recorded(tmp_path, balance="active") as deployments:
        engine = Engine(deployments)
        await engine.asks()
        side, said = engine.deployment.engine, engine.layers(OTHER, 1)
        with pytest.raises(InvalidArgumentError, match="layers: 3 is not a layer"):
            await side.switched(said._replace(layers_K=np.array([3], np.int32)))
        with pytest.raises(InvalidArgumentError, match="phy2log: 6 slots are not 12"):
            await side.switched(said._replace(phy2log_KR=said.phy2log_KR[:, :6]))
        with pytest.raises(InvalidArgumentError, match="phy2log"):
            await side.switched(said._replace(phy2log_KR=said.phy2log_KR + 1))
        with pytest.raises(FailedPreconditionError, match="incarnation"):
            await side.switched(said._replace(incarnation=2))


# Operators.


async def test_a_pin_a_roll_back_and_a_trigger_are_the_answer_to_the_next_call(tmp_path):
    async with scene.recorded(tmp_path, balance="active") as deployments:
        engine = Engine(deployments)
        await engine.obeys()
        operators = engine.deployment.operators
        await operators.pin(OTHER)
        answer = await engine.obeys()
        assert (answer.switch.placement, answer.logged) == (OTHER, None)
        answer = await engine.obeys()
        assert (answer.switch, answer.kept_because) == (None, "pinned: the placement is in force")
        await operators.pin(UNTOUCHED)
        # An engine that does not take it is told again.
        assert (await engine.asks()).switch.placement == UNTOUCHED
        assert (await engine.obeys()).switch.placement == UNTOUCHED
        await operators.pin(None)
        await operators.update_policy(lambda policy: replace(policy, mode=Mode.OFF))
        assert (await engine.obeys()).kept_because == "the policy is off"
        await operators.move_to(OTHER)
        assert (await engine.obeys()).switch.placement == OTHER
        await engine.obeys()
        assert engine.deployment.rollout.record.placement == OTHER


async def test_a_paused_deployment_keeps_its_placement(tmp_path):
    async with scene.recorded(tmp_path, balance="active") as deployments:
        engine = Engine(deployments)
        await engine.asks()
        await engine.deployment.operators.pause("a rehearsal")
        await engine.deployment.wait_idle()
        assert engine.deployment.status.phase == "idle"
        answer = await engine.asks()
        assert answer.switch is None
        assert answer.kept_because == "not_ready: the deployment is paused: a rehearsal"
        # The call before the pause gets no placement any more.
        assert (await engine.repeats()).switch is None
        await engine.deployment.operators.resume()
        assert (await engine.asks()).switch is not None


@pytest.mark.parametrize("observes", [False, True])
async def test_in_shadow_mode_and_for_an_observing_engine_decisions_are_reported_only(
    observes, tmp_path
):
    async with scene.recorded(tmp_path, balance="active" if observes else "shadow") as deployments:
        engine = Engine(deployments, observes=observes)
        answer = await engine.asks()
        assert answer.switch is None
        assert answer.logged.decision.moves
        assert answer.kept_because == "improved: not carried out in shadow mode" or (
            answer.kept_because == "replanned: not carried out in shadow mode"
        )
        status = engine.deployment.status
        assert (status.mode, status.shadow_moves > 0) == ("shadow", True)
        # Whatever the engine's own policy did is what the next plan starts from.
        engine.placement = OTHER
        answer = await engine.asks()
        assert answer.in_force == Version(2, 0)
        assert answer.logged.decision.candidate.before == pytest.approx(imbalance_of(OTHER))


async def test_an_engine_that_only_observes_cannot_be_sent_anywhere(tmp_path):
    async with scene.recorded(tmp_path, balance="active") as deployments:
        engine = Engine(deployments, observes=True)
        await engine.asks()
        with pytest.raises(FailedPreconditionError, match="the engine only reports"):
            await engine.deployment.operators.move_to(OTHER)
        await engine.deployment.operators.pin(OTHER)
        assert (await engine.asks()).switch is None


async def test_only_calls_of_the_engine_make_plans(tmp_path):
    async with scene.recorded(tmp_path, balance="active") as deployments:
        engine = Engine(deployments)
        await engine.obeys()
        before = dict(engine.deployment.status.decisions)
        assert await engine.deployment.rebalance_once() is None
        assert engine.deployment.status.decisions == before
        assert engine.deployment.status.balance.predicted is not None


# Processes and kinds.


async def test_a_new_process_replaces_the_old_one(tmp_path):
    async with scene.recorded(tmp_path, balance="active") as deployments:
        old = Engine(deployments)
        await old.obeys()
        new = Engine(deployments, incarnation=2)
        assert (await new.asks()).in_force == Version(2, 0)
        with pytest.raises(FailedPreconditionError, match="incarnation: 1 is below 2"):
            await old.asks()
        assert (await new.asks()).in_force == Version(2, 0)
        assert len(new.deployment.status.workers) == 1


async def test_a_call_that_does_not_belong_here_harms_nobody(tmp_path):
    async with scene.recorded(tmp_path, balance="active") as deployments:
        engine = Engine(deployments)
        await engine.obeys()
        smaller = replace(BY_ENGINE, topology=Topology(12, 2))
        with pytest.raises(FailedPreconditionError, match="num_gpus: 2 is not 4"):
            await Engine(deployments, spec=smaller, incarnation=2).asks()
        assert (await engine.asks()).in_force == Version(1, 1)


async def test_each_kind_refuses_the_other(tmp_path):
    async with scene.recorded(tmp_path) as deployments:
        engine = Engine(deployments)
        await engine.asks()
        with pytest.raises(FailedPreconditionError, match="switched_by: workers is not engine"):
            await scene.joined(deployments)
        await scene.joined(deployments, name="w")
        with pytest.raises(FailedPreconditionError, match="switched_by: engine is not workers"):
            await Engine(deployments, name="w").asks()


async def test_a_deployment_may_be_created_ahead_and_has_to_be_of_the_engines_shape(tmp_path):
    ahead = replace(BY_ENGINE, scope="", bytes_per_expert=0)
    async with scene.recorded(tmp_path) as deployments:
        await deployments.create("d", ahead, lambda policy: replace(policy, mode=Mode.SHADOW))
        engine = Engine(deployments)
        assert (await engine.asks()).logged.mode is Mode.SHADOW
        assert engine.deployment.spec.scope == "global"
        smaller = replace(BY_ENGINE, topology=Topology(12, 2))
        with pytest.raises(FailedPreconditionError, match="num_gpus: 2 is not 4"):
            await Engine(deployments, spec=smaller, incarnation=2).asks()


async def test_a_deployment_can_be_deleted_between_two_calls(tmp_path):
    async with scene.recorded(tmp_path, balance="active") as deployments:
        engine = Engine(deployments)
        await engine.obeys()
        await deployments.delete("d")
        with pytest.raises(NotFoundError):
            deployments.find("d")
        # The server does not know how old the engine's counts are.
        assert (await engine.asks()).kept_because == "no_load"
        assert (await engine.asks()).logged.decision.candidate is not None


# Restarts and failures.


@pytest.mark.parametrize("taken", [False, True])
async def test_a_server_that_starts_again_goes_on_with_what_is_in_force(taken, tmp_path):
    async with scene.recorded(tmp_path, balance="active") as deployments:
        engine = Engine(deployments)
        answer = await engine.asks()
        tokens = engine.deployment.load().sum()
    if taken:
        engine.placement = answer.switch.placement
    async with scene.recorded(tmp_path, balance="active") as deployments:
        engine.deployments = deployments
        assert deployments.find("d").load().sum() == pytest.approx(tokens)
        assert (await engine.repeats()).kept_because == "the report was counted before"
        answer = await engine.asks()
        record = engine.deployment.rollout.record
        assert record.placement == engine.placement
        assert record.epoch.number == (2 if taken else 1)
        assert engine.deployment.load().sum() == pytest.approx(tokens)


@pytest.mark.parametrize("when", ["before", "written"])
@pytest.mark.parametrize("failures", [1, 2, 3])
async def test_a_store_that_fails_loses_neither_load_nor_what_is_in_force(failures, when, tmp_path):
    """Save 1, 2 or 3 after the engine took a placement: commit, end of the switch, next offer."""
    async with scene.recorded(tmp_path, balance="active") as deployments:
        engine = Engine(deployments)
        await engine.obeys()
        with scene.failing(f"save:{when}", f"@{failures}"):
            failed = False
            try:
                await engine.obeys()
            except UnavailableError:
                failed = True
        assert failed
        answer = await engine.repeats()
        assert answer.in_force.generation >= 1 or answer.in_force.epoch == 2
        record = engine.deployment.rollout.record
        assert record.placement == engine.placement
        assert record.paused is None
        assert engine.deployment.load().tolist() == pytest.approx(SKEWED / 100)


async def test_a_server_that_drains_ends_the_session_and_turns_calls_away(tmp_path):
    async with scene.recorded(tmp_path, balance="active") as deployments:
        engine = Engine(deployments)
        await engine.asks()
        deployment = engine.deployment
        await deployments.drain()
        assert deployment.sessions == ()
        with pytest.raises(UnavailableError, match="shutting down"):
            await engine.asks()


async def test_a_report_that_fell_is_refused_and_changes_nothing(tmp_path):
    async with scene.recorded(tmp_path, balance="active") as deployments:
        engine = Engine(deployments)
        await engine.asks()
        with pytest.raises(InvalidArgumentError, match=r"report.counts\[1, 0\]"):
            await engine.asks(-2 * SKEWED)
        offered = engine.deployment.rollout.record.switch
        assert offered.version == Version(1, 1)
        assert engine.deployment.load().tolist() == pytest.approx(SKEWED / 100)


def test_an_engine_that_switches_is_a_kind_of_its_own():
    assert BY_ENGINE.by_engine
    assert not SPEC.by_engine
