"""Calls that come while something else is planned, saved, carried out or deleted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.engine import scene
from tests.engine.scene import OTHER, SPEC, UNTOUCHED, W0, W1
from trimtab_protocol.messages import Refused
from trimtab_protocol.version import Version
from trimtab_server.domain import errors
from trimtab_server.engine.deployment import Deployment
from trimtab_server.engine.deployment_spec import DeploymentSpec
from trimtab_server.engine.planner import Planner
from trimtab_server.policy.policy import Mode
from trimtab_server.store.memory import MemoryDisk


def becoming(mode: Mode) -> Callable[[Deployment], Any]:
    return lambda deployment: deployment.operators.update_policy(
        lambda policy: replace(policy, mode=mode)
    )


WISHES = {
    "shadow": becoming(Mode.SHADOW),
    "off": becoming(Mode.OFF),
    "pin": lambda deployment: deployment.operators.pin(UNTOUCHED),
}


@pytest.mark.parametrize("wish", WISHES)
async def test_a_plan_is_not_offered_if_an_operator_has_intervened_meanwhile(monkeypatch, wish):
    planning, release, place = asyncio.Event(), asyncio.Event(), Planner.place

    async def held(self, *arguments):
        planning.set()
        await release.wait()
        return await place(self, *arguments)

    async with scene.server(balance="active") as deployments:
        deployment, _ = await scene.loaded(deployments)
        monkeypatch.setattr(Planner, "place", held)
        steering = asyncio.ensure_future(deployment.rebalance_once())
        await planning.wait()
        await WISHES[wish](deployment)
        release.set()
        assert (await steering).moves
        assert deployment.status.phase == "idle"
        assert deployment.status.shadow_moves == 0
        assert deployment.rollout.record.last_generation == 0


@pytest.mark.parametrize("mode", [Mode.SHADOW, Mode.OFF])
async def test_a_rollout_of_a_decision_ends_when_the_mode_changes(mode):
    async with scene.server(balance="active") as deployments:
        deployment, worker = await scene.loaded(deployments, max_layers=1)
        assert (await deployment.rebalance_once()).moves
        await becoming(mode)(deployment)
        await scene.one_switch(deployment, worker)
        assert (deployment.status.phase, deployment.status.in_force) == ("idle", Version(1, 1))


async def test_a_rollout_to_a_pin_ends_with_the_pin():
    async with scene.serving(scene.server(), max_layers=1) as (deployment, worker):
        await deployment.operators.pin(OTHER)
        await deployment.operators.pin(None)
        await scene.one_switch(deployment, worker)
        assert (deployment.status.phase, deployment.status.in_force) == ("idle", Version(1, 1))


async def test_a_rollout_of_an_operator_goes_on_when_the_mode_changes():
    async with scene.serving(scene.server(), max_layers=1) as (deployment, worker):
        await deployment.operators.move_to(OTHER)
        await becoming(Mode.SHADOW)(deployment)
        assert await deployment.operators.pin(None) is None
        await scene.carried_out(deployment, worker)
        assert deployment.status.digest == OTHER.digest


async def test_an_acknowledged_policy_is_durable_even_after_a_failure():
    disk = MemoryDisk()
    async with scene.server(disk, balance="active") as deployments:
        deployment, _ = await scene.joined(deployments)
        with scene.failing("save_spec:durable"), pytest.raises(errors.UnavailableError):
            await becoming(Mode.OFF)(deployment)
        await becoming(Mode.ACTIVE)(deployment)
    async with scene.server(disk) as deployments:
        assert deployments.find("d").policy.mode is Mode.ACTIVE


async def test_calls_to_a_deployment_that_was_deleted_meanwhile_are_not_found():
    disk = MemoryDisk()
    async with scene.server(disk) as deployments:
        deployment, worker = await scene.joined(deployments)
        deployments.leave(deployment, worker)
        await deployments.delete("d")
        ask = deployment.operators
        wishes = ask.pin(OTHER), ask.pause("why"), ask.move_to(OTHER), WISHES["off"](deployment)
        for wish in wishes:
            with pytest.raises(errors.NotFoundError, match="there is no deployment 'd' any more"):
                await wish
    assert not disk.contents.records
    assert not disk.contents.specs


@pytest.mark.parametrize("what", ["create", "delete"])
async def test_a_cancelled_call_is_carried_out_all_the_same(what):
    disk = MemoryDisk()
    async with scene.server(disk) as deployments:
        if what == "delete":
            deployment, worker = await scene.joined(deployments)
            deployments.leave(deployment, worker)
            call = deployments.delete("d")
            gone = asyncio.ensure_future(deployment.changed())
        else:
            call = deployments.create("new", SPEC, lambda policy: policy)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):  # it begins, and is cancelled where it waits first
                await call
    assert list(disk.contents.specs) == ([] if what == "delete" else ["new"])
    if what == "delete":
        await asyncio.wait_for(gone, 10)
        assert deployment.is_deleted


async def test_counts_do_not_outlive_their_deployment():
    disk = MemoryDisk()
    async with scene.server(disk) as deployments:
        deployment, worker = await scene.joined(deployments)
        scene.reported(deployment, worker)
        deployments.leave(deployment, worker)
        deleting = asyncio.ensure_future(deployments.delete("d"))
        async with asyncio.timeout(20):
            while not deployment.is_deleted:  # noqa: ASYNC110 - one turn of the loop at a time
                await asyncio.sleep(0)
        await deployment.save_counters()
        await deleting
    assert not disk.contents.counters


async def test_a_refused_worker_does_not_change_the_spec():
    async with scene.server() as deployments:
        deployment, worker = await scene.joined(deployments)
        deployments.leave(deployment, worker)
        await deployment.wait_idle()
        with pytest.raises((errors.FailedPreconditionError, errors.SessionClosedError)):
            await scene.joined(deployments, worker="stranger", spec=replace(SPEC, model="wrong"))
        again = {"stream": 2, "in_force": Version(1, 0)}
        deployment, _ = await scene.joined(deployments, spec=replace(SPEC, model="right"), **again)
        assert deployment.spec.model == "right"


async def test_workers_that_join_at_once_have_to_agree_with_the_first():
    """Even if an operator created the deployment, without knowing how its engine counts."""
    made = DeploymentSpec(SPEC.topology, SPEC.num_layers, SPEC.num_experts)
    async with scene.server() as deployments:
        await deployments.create("d", made, lambda policy: policy)
        other = {"spec": replace(SPEC, bytes_per_expert=7), **W1}
        joins = (scene.joined(deployments, **said) for said in (W0, other, W1))
        first, refused, second = await asyncio.gather(*joins, return_exceptions=True)
        assert isinstance(refused, errors.FailedPreconditionError)
        assert "bytes_per_expert: 7 is not 100" in str(refused)
        deployment = first[0]
        assert second[0] is deployment
        assert deployment.spec == SPEC
        assert deployment.status.in_force == Version(1, 0)


async def test_a_worker_that_refuses_a_pin_is_not_asked_again_at_once():
    async with scene.serving(scene.server()) as (deployment, worker):
        await deployment.operators.pin(OTHER)
        for _ in range(3):
            if deployment.rollout.record.switch is not None:
                await scene.answer(deployment, worker, Refused, "no room")
            await deployment.rebalance_once()
        assert deployment.rollout.record.last_generation == 1
