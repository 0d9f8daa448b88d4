"""What comes in between: while something is planned, saved, carried out or deleted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.engine.test_steering import (
    FACTS,
    OTHER,
    UNTOUCHED,
    carried_out,
    joined,
    reported,
    server,
)
from trimtab_server.domain.errors import (
    FailedPreconditionError,
    NotFoundError,
    SessionClosedError,
    UnavailableError,
)
from trimtab_server.domain.version import Version
from trimtab_server.engine.arrival import Arrival, Facts
from trimtab_server.engine.backoff import Backoff
from trimtab_server.engine.deployment import Deployment
from trimtab_server.engine.planner import Planner
from trimtab_server.engine.turns import Turns
from trimtab_server.policy.policy import Mode
from trimtab_server.rollout.messages import Applied, Hello, Prepared, Refused
from trimtab_server.rollout.record import Record, Stage, Switch
from trimtab_server.store.failpoints import configure
from trimtab_server.store.memory import MemoryDisk


def becoming(mode: Mode) -> Callable[[Deployment], Any]:
    return lambda deployment: deployment.update(lambda policy: replace(policy, mode=mode))


@pytest.mark.parametrize(
    "wish",
    [becoming(Mode.SHADOW), becoming(Mode.OFF), lambda deployment: deployment.pin(UNTOUCHED)],
    ids=["shadow", "off", "pin"],
)
async def test_what_is_planned_while_operators_decide_otherwise_is_not_offered(monkeypatch, wish):
    planning, release, place = asyncio.Event(), asyncio.Event(), Planner.place

    async def held(self, *arguments):
        planning.set()
        await release.wait()
        return await place(self, *arguments)

    async with server(balance="active") as deployments:
        deployment, worker = await joined(deployments)
        await deployment.steer()
        reported(deployment, worker)
        monkeypatch.setattr(Planner, "place", held)
        steering = asyncio.ensure_future(deployment.steer())
        await planning.wait()
        await wish(deployment)
        release.set()
        assert (await steering).moves
        assert deployment.status.phase == "idle"
        assert deployment.status.moves_in_shadow == 0
        assert deployment.rollout.record.last_generation == 0


async def one_switch(deployment, worker) -> None:
    switch = deployment.rollout.record.switch
    about = switch.version, switch.placement.digest
    await deployment.answer(worker, Prepared(*about))
    await deployment.answer(worker, Applied(*about, 1000))


@pytest.mark.parametrize("mode", [Mode.SHADOW, Mode.OFF])
async def test_a_way_that_a_decision_began_ends_with_its_mode(mode):
    async with server(balance="active") as deployments:
        deployment, worker = await joined(deployments, max_layers=1)
        await deployment.steer()
        reported(deployment, worker)
        assert (await deployment.steer()).moves
        await becoming(mode)(deployment)
        await one_switch(deployment, worker)
        assert (deployment.status.phase, deployment.status.in_force) == ("idle", Version(1, 1))


async def test_a_way_to_a_pin_ends_with_the_pin():
    async with server() as deployments:
        deployment, worker = await joined(deployments, max_layers=1)
        await deployment.pin(OTHER)
        await deployment.pin(None)
        await one_switch(deployment, worker)
        assert (deployment.status.phase, deployment.status.in_force) == ("idle", Version(1, 1))


async def test_a_way_that_an_operator_began_goes_on_whatever_the_mode():
    async with server() as deployments:
        deployment, worker = await joined(deployments, max_layers=1)
        await deployment.move_to(OTHER)
        await becoming(Mode.SHADOW)(deployment)
        assert await deployment.pin(None) is None
        await carried_out(deployment, worker)
        assert deployment.status.digest == OTHER.digest


async def test_a_policy_is_durable_once_it_is_acknowledged_whatever_failed_before():
    disk = MemoryDisk()
    async with server(disk, balance="active") as deployments:
        deployment, _ = await joined(deployments)
        configure("save_spec:durable=error")
        try:
            with pytest.raises(UnavailableError):
                await becoming(Mode.OFF)(deployment)
        finally:
            configure("")
        await becoming(Mode.ACTIVE)(deployment)
    async with server(disk) as deployments:
        assert deployments.find("d").policy.mode is Mode.ACTIVE


async def test_a_deployment_that_was_deleted_meanwhile_is_not_there():
    disk = MemoryDisk()
    async with server(disk) as deployments:
        deployment, worker = await joined(deployments)
        deployments.leave(deployment, worker)
        await deployments.delete("d")
        wishes = (deployment.pin(OTHER), deployment.pause("why"), deployment.move_to(OTHER))
        for wish in (*wishes, becoming(Mode.OFF)(deployment)):
            with pytest.raises(NotFoundError, match="there is no deployment 'd' any more"):
                await wish
    assert not disk.contents.records
    assert not disk.contents.specs


@pytest.mark.parametrize("what", ["create", "delete"])
async def test_a_call_that_is_cancelled_is_carried_out_all_the_same(what):
    disk = MemoryDisk()
    async with server(disk) as deployments:
        if what == "delete":
            deployment, worker = await joined(deployments)
            deployments.leave(deployment, worker)
            call = deployments.delete("d")
            gone = asyncio.ensure_future(deployment.changed())
        else:
            call = deployments.create("new", FACTS, lambda policy: policy)
        task = asyncio.ensure_future(call)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    expected = [] if what == "delete" else ["new"]
    assert list(disk.contents.specs) == expected
    if what == "delete":
        await asyncio.wait_for(gone, 10)
        assert deployment.forgotten


async def test_counts_do_not_outlive_their_deployment():
    disk = MemoryDisk()
    async with server(disk) as deployments:
        deployment, worker = await joined(deployments)
        reported(deployment, worker)
        deployments.leave(deployment, worker)
        deleting = asyncio.ensure_future(deployments.delete("d"))
        async with asyncio.timeout(20):
            while not deployment.forgotten:  # noqa: ASYNC110 - one turn of the loop at a time
                await asyncio.sleep(0)
        await deployment.save_counters()
        await deleting
    assert not disk.contents.counters


async def test_who_is_refused_says_nothing_of_the_deployment():
    async with server() as deployments:
        deployment, worker = await joined(deployments)
        deployments.leave(deployment, worker)
        await deployment.settle()
        stranger = Hello("g", "stranger", 1, 1, (0, 1, 2, 3), UNTOUCHED)
        wrong = replace(FACTS, model="wrong")
        with pytest.raises((FailedPreconditionError, SessionClosedError)):
            await deployments.join(Arrival("d", wrong, stranger, 12, 0))
        hello = Hello("g", "w", 1, 2, (0, 1, 2, 3), UNTOUCHED, Version(1, 0))
        right = replace(FACTS, model="right")
        deployment, _ = await deployments.join(Arrival("d", right, hello, 12, 0))
        assert deployment.facts.model == "right"


async def test_workers_that_come_at_once_agree_with_the_first_of_them():
    """Also of a deployment that an operator made, who does not know how its engine counts."""
    made = Facts(FACTS.topology, FACTS.num_layers, FACTS.num_experts)
    async with server() as deployments:
        await deployments.create("d", made, lambda policy: policy)
        gpus = [(0, 1), (2, 3)]
        hellos = [Hello("g", f"w{i}", 1, 1, each, UNTOUCHED) for i, each in enumerate(gpus)]
        arrivals = [Arrival("d", FACTS, hello, 12, 0) for hello in hellos]
        other = replace(arrivals[1], facts=replace(FACTS, bytes_per_expert=7))
        joins = (deployments.join(each) for each in (arrivals[0], other, arrivals[1]))
        first, refused, second = await asyncio.gather(*joins, return_exceptions=True)
        assert isinstance(refused, FailedPreconditionError)
        assert "bytes_per_expert: 7 is not 100" in str(refused)
        deployment = first[0]
        assert second[0] is deployment
        assert deployment.facts == FACTS
        assert deployment.status.in_force == Version(1, 0)


async def test_who_refuses_a_pin_is_asked_ever_more_seldom():
    async with server() as deployments:
        deployment, worker = await joined(deployments)
        await deployment.pin(OTHER)
        for _ in range(3):
            switch = deployment.rollout.record.switch
            if switch is not None:
                refused = Refused(switch.version, switch.placement.digest, "no room")
                await deployment.answer(worker, refused)
            await deployment.steer()
        assert deployment.rollout.record.last_generation == 1


def test_an_offer_that_is_aborted_again_is_made_twice_as_late_and_one_that_is_not_at_once():
    backoff, waits, now = Backoff(), [], 100.0
    before = Record(in_force=Version(1, 0))

    def ended(generation: int, in_force: int) -> None:
        switch = Switch(Version(1, generation), OTHER, Stage.OFFERED)
        backoff.offered(replace(before, switch=switch))
        backoff.look(replace(before, switch=switch), now)  # still open
        backoff.look(replace(before, in_force=Version(1, in_force)), now)

    for generation in range(1, 10):
        ended(generation, 0)
        waited = 0.0
        while backoff.why_not(now) is not None:
            now, waited = now + 0.5, waited + 0.5
        waits.append(waited)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    ended(10, 10)
    assert backoff.why_not(now) is None
    ended(11, 10)
    assert backoff.why_not(now + 1) is None, "from the beginning"


async def test_who_waits_for_a_change_hears_of_one_from_the_moment_of_asking():
    turns = Turns()
    waiting = turns.changed()
    async with turns.turn():
        pass
    await asyncio.wait_for(waiting, 10)
