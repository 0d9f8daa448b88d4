"""What deployments do on their own: shadow mode, pins, and decisions of the policy."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from tests.engine import scene
from tests.engine.scene import OTHER, SKEWED, SPEC, UNTOUCHED, W0, W1
from trimtab_protocol.lines import read_placement
from trimtab_protocol.messages import Report
from trimtab_protocol.version import Version
from trimtab_server.domain.errors import FailedPreconditionError, UnavailableError
from trimtab_server.domain.placement import count_moves
from trimtab_server.engine import load_aggregator
from trimtab_server.engine.load_aggregator import LoadAggregator
from trimtab_server.loads.adaptive import AdaptiveLoad
from trimtab_server.policy.decide import Reason
from trimtab_server.policy.policy import Mode, Policy
from trimtab_server.store.memory import MemoryDisk


async def test_shadow_mode_follows_its_own_decisions_and_offers_nothing():
    async with scene.serving(scene.server(balance="shadow")) as (deployment, worker):
        await deployment.rebalance_once()
        shadows, reasons, seq = [], [], 0
        while not reasons or reasons[-1] in (Reason.IMPROVED, Reason.REPLANNED):
            seq += 1
            scene.reported(deployment, worker, seq)
            reasons.append((await deployment.rebalance_once()).reason)
            await deployment.rebalance_once()  # looks at what was decided
            shadows.append(deployment.status.balance.shadow.mean)
        status = deployment.status
        assert len(reasons) >= 2
        assert shadows == sorted(shadows, reverse=True)
        assert shadows[-1] < status.balance.predicted.mean
        assert status.shadow_moves > 0
        assert (status.in_force, status.phase) == (Version(1, 0), "idle")
        assert deployment.rollout.record.last_generation == 0
        # Over: nothing of it is shown any more.
        await deployment.operators.update_policy(lambda policy: replace(policy, mode=Mode.OFF))
        assert await deployment.rebalance_once() is None
        assert deployment.status.balance.shadow is None
        assert deployment.status.shadow_moves == 0


async def test_the_history_has_each_placement_of_shadow_mode(tmp_path):
    async with scene.recorded(tmp_path, balance="shadow") as deployments:
        deployment, _ = await scene.loaded(deployments)
        assert (await deployment.rebalance_once()).moves
        await deployment.rebalance_once()
        moves = deployment.status.shadow_moves
    lines = map(json.loads, (tmp_path / "history.jsonl").read_text().splitlines())
    first, second = (line for line in lines if line["kind"] == "shadow")
    assert (first["step"], first["moves"]) == (99, 0)
    assert read_placement(first["placement"], "") == UNTOUCHED
    assert (second["step"], second["moves"]) == (99, moves)
    shadow = read_placement(second["placement"], "")
    assert count_moves(UNTOUCHED, shadow) == moves > 0


async def test_a_policy_that_becomes_active_moves_experts_at_its_next_decision():
    async with scene.serving(scene.server(balance="off")) as (deployment, worker):
        assert await deployment.rebalance_once() is None
        await deployment.operators.update_policy(lambda policy: replace(policy, mode=Mode.ACTIVE))
        await deployment.rebalance_once()
        scene.reported(deployment, worker)
        decision = await deployment.rebalance_once()
        assert decision.moves
        assert deployment.status.phase == "offered"
        await scene.carried_out(deployment, worker)
        served = deployment.rollout.record.placement
        assert count_moves(UNTOUCHED, served) == decision.candidate.moves
        assert deployment.status.decisions == {"no_load": 1, decision.reason.value: 1}


async def test_the_layers_that_gain_most_are_switched_first():
    # Only the last layer is out of balance.
    counts_LE = np.full_like(SKEWED, 1000)
    counts_LE[2, 0] = 50_000
    async with scene.server(balance="active") as deployments:
        deployment, _ = await scene.loaded(deployments, counts_LE, max_layers=1)
        assert (await deployment.rebalance_once()).moves
        offered = deployment.rollout.record.switch.placement
        differs_L = (offered.phy2log != UNTOUCHED.phy2log).any(1)
        assert differs_L.tolist() == [False, False, True]


@pytest.mark.parametrize(("scope", "waits"), [("local", True), ("source", True), ("global", False)])
async def test_a_decision_waits_for_all_reporting_workers(scope, waits):
    spec = replace(SPEC, scope=scope)
    async with scene.server(balance="active") as deployments:
        workers = []
        for said in (W0, W1):
            deployment, worker = await scene.joined(deployments, spec=spec, **said)
            workers.append(worker)
        await deployment.rebalance_once()
        scene.reported(deployment, workers[0])
        assert (await deployment.rebalance_once()).moves is not waits
        if waits:
            silent = "'w1' has reported no load yet, and others have"
            assert deployment.status.last_decision.detail == silent
            scene.reported(deployment, workers[1])
            assert (await deployment.rebalance_once()).moves


async def test_another_half_life_goes_on_from_the_current_estimate():
    async with scene.serving(scene.server()) as (deployment, worker):
        scene.reported(deployment, worker)
        load_LE = deployment.load()
        await deployment.operators.update_policy(lambda now: replace(now, window_steps=50.0))
        assert deployment.load() == pytest.approx(load_LE)
        # And from now on by the new one: what is older than the window weighs nothing.
        scene.reported(deployment, worker, 2, SKEWED * 3)
        assert deployment.load() == pytest.approx((SKEWED * 6 - SKEWED) / 100)


async def test_a_policy_that_cannot_be_saved_is_not_adopted():
    async with scene.serving(scene.server()) as (deployment, _):
        before = deployment.policy
        with scene.failing("save_spec:written"), pytest.raises(UnavailableError, match="store"):
            await deployment.operators.update_policy(lambda now: replace(now, mode=Mode.SHADOW))
        assert deployment.policy == before


async def test_imbalance_is_measured_from_reports_and_predicted_from_the_load():
    async with scene.serving(scene.server()) as (deployment, worker):
        await deployment.rebalance_once()
        assert deployment.status.balance.predicted is None
        scene.reported(deployment, worker)
        await deployment.rebalance_once()
        outlook = deployment.status.balance
        # One worker owns all GPUs, so what its slots have had is divided as predicted.
        assert outlook.measured == pytest.approx(outlook.predicted)
        assert outlook.measured_smoothed == pytest.approx(outlook.predicted_smoothed)
        even_LE = SKEWED + np.full_like(SKEWED, 10**6)
        deployment.workers.report(worker, Report(2, 100, 199, even_LE))
        await deployment.rebalance_once()
        outlook = deployment.status.balance
        assert outlook.predicted.mean < outlook.predicted_smoothed.mean


async def test_a_stored_deployment_goes_on_before_its_workers_are_back():
    disk = MemoryDisk()
    async with scene.server(disk, balance="active") as deployments:
        deployment, worker = await scene.joined(deployments)
        scene.reported(deployment, worker)
        await deployment.operators.update_policy(lambda now: replace(now, max_moves_per_layer=1))
        load_LE, step = deployment.load(), deployment.status.step
    async with scene.server(disk, balance="off") as deployments:
        deployment = deployments.find("d")
        assert deployment.load() == pytest.approx(load_LE)
        status = deployment.status
        assert (status.in_force, status.step, status.absent) == (Version(1, 0), step, 1)
        assert deployment.spec == SPEC
        # Its own, and not what new ones get.
        assert deployment.policy == Policy(mode=Mode.ACTIVE, max_moves_per_layer=1)
        assert (await deployment.rebalance_once()).reason is Reason.NOT_READY
        assert deployment.status.last_decision.detail == "'w' has no session"
        deployment, worker = await scene.joined(deployments, stream=2, in_force=Version(1, 0))
        assert (await deployment.rebalance_once()).moves


async def test_each_new_group_goes_to_the_pin_which_stops_decisions_and_triggers():
    async with scene.server(balance="active") as deployments:
        deployment, worker = await scene.loaded(deployments)
        assert await deployment.operators.pin(OTHER) is None
        await scene.carried_out(deployment, worker)
        assert deployment.status.digest == OTHER.digest
        assert await deployment.rebalance_once() is None
        with pytest.raises(FailedPreconditionError, match=r"pinned to .*: unpin it first"):
            await deployment.operators.move_to(UNTOUCHED)
        # The engine starts anew, with what it loads by default.
        deployment, worker = await scene.joined(deployments, group_id="g2", incarnation=2)
        assert deployment.status.digest == UNTOUCHED.digest
        await deployment.rebalance_once()
        await scene.carried_out(deployment, worker)
        assert deployment.status.digest == OTHER.digest
        assert await deployment.operators.pin(None) is OTHER
        scene.reported(deployment, worker)
        assert (await deployment.rebalance_once()).moves


async def test_a_pin_replaces_the_rollout_that_is_under_way():
    async with scene.serving(scene.server(), max_layers=1) as (deployment, worker):
        await deployment.operators.move_to(OTHER)
        await deployment.operators.pin(UNTOUCHED)
        # The piece that is open ends first.
        await scene.carried_out(deployment, worker)
        assert deployment.status.in_force == Version(1, 1)
        await deployment.rebalance_once()
        await scene.carried_out(deployment, worker)
        assert deployment.status.digest == UNTOUCHED.digest


async def test_a_deleted_deployment_leaves_nothing_in_the_store():
    disk = MemoryDisk()
    async with scene.server(disk) as deployments:
        deployment, worker = await scene.joined(deployments)
        scene.reported(deployment, worker)
        await deployment.save_counters()
        with pytest.raises(FailedPreconditionError, match="has 1 sessions: end its workers first"):
            await deployments.delete("d")
        deployments.leave(deployment, worker)
        with scene.failing("delete:written"), pytest.raises(UnavailableError, match="store failed"):
            await deployments.delete("d")
        assert (deployments.find("d"), deployment.is_deleted) == (deployment, False)
        await deployments.delete("d")
        assert deployments.all() == []
        assert deployment.is_deleted
    kept = {name: value for name, value in vars(disk.contents).items() if name != "term"}
    assert not any(kept.values()), kept


class Counted:
    """Counts the calls of a function of a module or class."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> None:
        self.calls = 0
        call = getattr(owner, name)

        def counted(*args: object, **options: object) -> object:
            self.calls += 1
            return call(*args, **options)

        monkeypatch.setattr(owner, name, counted)


@pytest.mark.parametrize("smoothing", [{"half_life_steps": 400.0}, {"window_steps": 400.0}, {}])
async def test_a_load_is_added_up_once_for_each_report_whoever_asks_for_it(monkeypatch, smoothing):
    async with scene.serving(scene.server(balance="shadow")) as (deployment, worker):
        await deployment.operators.update_policy(lambda policy: replace(policy, **smoothing))
        await deployment.rebalance_once()
        known = Counted(monkeypatch, load_aggregator, "from_rates")
        sums = Counted(monkeypatch, LoadAggregator, "sum")
        updates = Counted(monkeypatch, AdaptiveLoad, "update")
        for seq in (1, 2):
            scene.reported(deployment, worker, seq)
            assert (await deployment.rebalance_once()).reason is not Reason.TOO_SOON
            before = known.calls, sums.calls, updates.calls
            assert deployment.load().any()
            await deployment.rebalance_once()
            assert (known.calls, sums.calls, updates.calls) == before, "nothing was reported"
        # Of the smoothed load, and of that of the last reports.
        assert (known.calls, sums.calls, updates.calls) == ((2, 4, 0) if smoothing else (0, 2, 2))
