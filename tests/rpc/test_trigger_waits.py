"""A switch that cannot be offered now says what to do, or waits for its turn."""

from __future__ import annotations

import asyncio

import pytest

from tests.rpc.endpoint import Endpoint, endpoint_of
from tests.rpc.operating import V11, V12, client_of, in_force, run, switch, value
from tests.rpc.peers import carry_out, group, until
from tests.rpc.placements import AFTER, BEFORE, LAST
from trimtab_client import (
    AsyncClient,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    Policy,
)
from trimtab_server.policy.decide import Reason


async def test_a_refusal_by_an_open_switch_says_what_to_do(endpoint: Endpoint, client: AsyncClient):
    peers = await group(endpoint.channel)
    await client.trigger("d", placement=value(AFTER))
    with pytest.raises(FailedPreconditionError) as refused:
        await client.trigger("d", placement=value(LAST))
    assert "the switch to 1.1 is offered: waiting for w0, w1" in str(refused.value)
    assert "wait_seconds; --wait" in str(refused.value)
    assert "--pin" in str(refused.value)
    await carry_out(peers)
    await in_force(client, V11)


async def test_a_switch_waits_for_the_one_that_is_open(endpoint: Endpoint, client: AsyncClient):
    peers = await group(endpoint.channel)
    await client.trigger("d", placement=value(AFTER))
    waiting = asyncio.ensure_future(client.trigger("d", placement=value(LAST), wait=600))
    core = endpoint.deployments.find("d")._core
    await until(lambda: core.operators_waiting == 1)
    assert not waiting.done()
    await carry_out(peers)
    assert (await waiting).in_force == V11
    await carry_out(peers)
    assert (await in_force(client, V12)).status.digest == LAST.digest


async def test_a_switch_waits_for_workers(endpoint: Endpoint, client: AsyncClient):
    first, second = await group(endpoint.channel)
    await second.leave()
    waiting = asyncio.ensure_future(client.trigger("d", placement=value(AFTER), wait=600))
    core = endpoint.deployments.find("d")._core
    await until(lambda: core.operators_waiting == 1)
    await first.leave()
    peers = await group(endpoint.channel, group_id="g2")
    await waiting
    await carry_out(peers)


async def test_each_of_two_that_wait_gets_its_turn(endpoint: Endpoint, client: AsyncClient):
    peers = await group(endpoint.channel)
    await client.trigger("d", placement=value(AFTER))
    asking = [client.trigger("d", placement=value(each), wait=600) for each in (LAST, BEFORE)]
    waiting = [asyncio.ensure_future(each) for each in asking]
    core = endpoint.deployments.find("d")._core
    await until(lambda: core.operators_waiting == 2)
    for _ in range(3):
        await carry_out(peers)
    assert {(await each).target.digest for each in waiting} == {LAST.digest, BEFORE.digest}
    await in_force(client, V12._replace(generation=3))
    assert core.operators_waiting == 0


async def test_a_wait_ends_with_its_deployment(endpoint: Endpoint, client: AsyncClient):
    for peer in await group(endpoint.channel):
        await peer.leave()
    waiting = asyncio.ensure_future(client.trigger("d", placement=value(AFTER), wait=600))
    core = endpoint.deployments.find("d")._core
    await until(lambda: core.operators_waiting == 1)
    await client.delete_deployment("d")
    with pytest.raises(NotFoundError):
        await asyncio.wait_for(waiting, 300)


async def test_the_end_of_the_server_is_not_waited_for(endpoint: Endpoint, client: AsyncClient):
    for peer in await group(endpoint.channel):
        await peer.leave()
    waiting = asyncio.ensure_future(client.trigger("d", placement=value(AFTER), wait=600))
    deployment = endpoint.deployments.find("d")
    await until(lambda: deployment._core.operators_waiting == 1)
    await deployment._core.apply(deployment.rollout.drain)
    with pytest.raises(FailedPreconditionError, match=r"the server is shutting down$"):
        await asyncio.wait_for(waiting, 300)


async def test_a_wait_that_ends_in_vain_is_refused_with_the_reason(
    endpoint: Endpoint, client: AsyncClient
):
    await group(endpoint.channel)
    await client.trigger("d", placement=value(AFTER))
    with pytest.raises(
        FailedPreconditionError, match=r"1\.1 is offered.* after 0\.2 s; give it time"
    ):
        await client.trigger("d", placement=value(LAST), wait=0.2)


async def test_a_pause_or_a_pin_is_not_waited_for(endpoint: Endpoint, client: AsyncClient):
    await group(endpoint.channel)
    await client.pin("d", value(BEFORE))
    with pytest.raises(FailedPreconditionError, match=r"unpin it first$"):
        await client.trigger("d", placement=value(AFTER), wait=600)
    await client.unpin("d")
    await client.pause("d", "maintenance")
    with pytest.raises(FailedPreconditionError, match=r"is paused: maintenance$"):
        await client.trigger("d", placement=value(AFTER), wait=600)


@pytest.mark.parametrize("wait", [-1.0, float("inf"), -0.5, 1e10])
async def test_an_impossible_wait_is_refused(client: AsyncClient, endpoint: Endpoint, wait: float):
    await group(endpoint.channel)
    with pytest.raises(
        InvalidArgumentError, match=r"wait: .* is not a time of 0 to 604800 seconds"
    ):
        await client.trigger("d", placement=value(AFTER), wait=wait)


async def test_an_operators_turn_comes_before_decisions_of_the_policy():
    async with endpoint_of(balance="active") as endpoint, client_of(endpoint.address) as client:
        peers = await group(endpoint.channel)
        await client.update_policy("d", Policy(every_steps=1))
        for seq in (1, 2):
            for peer in peers:
                await peer.report(seq, counts=1000 * seq)
        deployment = endpoint.deployments.find("d")
        decision = await deployment.operators.in_turn(deployment.rebalance_once)
        assert decision is not None
        assert decision.reason is Reason.NOT_READY
        assert deployment.decisions.newest()[-1].detail == "an operator's switch comes first"
        after = await deployment.rebalance_once()
        assert after is not None
        assert after.reason is not Reason.NOT_READY


async def test_the_command_waits_and_says_that_the_policy_may_move_on(tmp_path, capsys):
    async with endpoint_of(balance="active") as endpoint, client_of(endpoint.address) as client:
        peers = await group(endpoint.channel)
        path = str(tmp_path / "placement.json")
        assert await run(endpoint.address, "deployments", "export", "d", path) == 0
        await switch(client, peers, AFTER)
        await client.trigger("d", placement=value(LAST))
        importing = ("deployments", "import", "d", path)
        assert await run(endpoint.address, *importing) == 1
        assert "--wait" in capsys.readouterr().err
        waiting = asyncio.ensure_future(run(endpoint.address, *importing, "--wait", "600"))
        core = endpoint.deployments.find("d")._core
        await until(lambda: core.operators_waiting == 1)
        await carry_out(peers)
        assert await waiting == 0
        assert "its policy may move experts again" in capsys.readouterr().out
        await carry_out(peers)
        assert (await in_force(client, V11._replace(generation=3))).status.digest == BEFORE.digest
