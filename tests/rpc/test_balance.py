"""Servers that rebalance on their own, over real sessions."""

from __future__ import annotations

import numpy as np
import pytest

from tests.rpc.endpoint import endpoint_of
from tests.rpc.peers import carry_out, group, until
from trimtab_server.rollout.open_switch import Phase

SKEWED = np.array([[1000, 10, 10, 10], [10, 10, 10, 1000]])


async def say_load(peers, seq: int = 1) -> None:
    for peer in peers:
        await peer.report(seq, counts=SKEWED * seq, last_step=100 * seq)


async def test_an_unbalanced_deployment_is_rebalanced_without_a_trigger():
    async with endpoint_of(balance="active", report_seconds=0.05) as endpoint:
        peers = await group(endpoint.channel)
        deployment = endpoint.deployments.find("d")
        # Looked at before its first report, so that the time of a step can be told.
        await until(lambda: deployment.status.decisions)
        await say_load(peers)
        await carry_out(peers, step=101)
        await until(lambda: deployment.rollout.record.in_force.generation == 1)


@pytest.mark.parametrize("balance", ["shadow", "off"])
async def test_shadow_mode_offers_nothing(balance):
    async with endpoint_of(balance=balance, report_seconds=3000, lease_seconds=3600) as endpoint:
        peers = await group(endpoint.channel)
        deployment = endpoint.deployments.find("d")
        await deployment.rebalance_once()
        await say_load(peers)
        decision = await deployment.rebalance_once()
        assert (decision is None) == (balance == "off")
        assert decision is None or decision.moves
        assert deployment.rollout.phase is Phase.IDLE
        assert deployment.rollout.record.last_generation == 0


async def test_a_failing_decision_raises_one_alarm_until_it_works_again(capsys):
    quiet = {"report_seconds": 3000, "lease_seconds": 3600}
    async with endpoint_of(balance="active", max_slots=4, **quiet) as endpoint:
        peers = await group(endpoint.channel)
        deployments = endpoint.deployments
        await say_load(peers)
        for seq in (2, 3, 4):
            await deployments._periodic._rebalance(deployments.find("d"))
            await say_load(peers, seq)
    said = capsys.readouterr().out
    assert said.count("no decision could be made: ResourceExhaustedError") == 1
