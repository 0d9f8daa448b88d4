"""Discarded counts, such as those of a warm-up, are forgotten everywhere and recorded as a gap."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from tests.rpc.endpoint import Endpoint, endpoint_of
from tests.rpc.peers import GPUS, Peer, group, report
from tests.servers import make_config
from trimtab_client import AsyncClient
from trimtab_server.app import App
from trimtab_server.engine.deployment import Deployment
from trimtab_server.policy.decide import Decision, Reason
from trimtab_tools.history import check_history, read_history

WARM_UP = np.array([[900, 1, 1, 1], [1, 1, 1, 900]])
RNG = np.random.default_rng(0)
TRAFFIC = RNG.gamma(0.5, 1000.0, (5, 2, 4)).astype(np.int64)
"""Of five spans of 16 steps."""

QUIET = {"balance": "active", "report_seconds": 3000, "lease_seconds": 3600}
"""The server decides only when the test asks for it."""


class Counting:
    """The counts of a worker, and its reports."""

    def __init__(self, peer: Peer) -> None:
        self.peer, self.seq, self.step = peer, 0, -1
        self.counts = np.zeros((2, 4), np.int64)

    async def count(self, counts: np.ndarray, steps: int, **changes: Any) -> None:
        self.seq, self.step = self.seq + 1, self.step + steps
        self.counts = self.counts + counts
        said = report(self.seq, counts=self.counts, last_step=self.step, **changes)
        await self.peer.say(report=said)
        assert (await self.peer.hear("report_ack")).seq == self.seq


async def decided(endpoint: Endpoint, *, warmed: bool) -> list[tuple[Decision | None, bytes]]:
    """The decision on the traffic, and its load."""
    workers = [Counting(peer) for peer in await group(endpoint.channel)]
    deployment = endpoint.deployments.find("d")
    if warmed:
        for worker in workers:
            await worker.count(WARM_UP, 30)
            await worker.count(0 * WARM_UP, 0, discard=True)
    await deployment.rebalance_once()
    seen = []
    for span in TRAFFIC:
        for worker in workers:
            await worker.count(span, 16)
        # Nobody answers the offer that may come of it, so the placement stays.
        seen.append((await deployment.rebalance_once(), deployment.loads.load().tobytes()))
    return seen


async def test_after_a_discarded_warm_up_decisions_are_bitwise_the_same() -> None:
    async with endpoint_of(**QUIET) as endpoint:
        without = await decided(endpoint, warmed=False)
    async with endpoint_of(**QUIET) as endpoint:
        assert await decided(endpoint, warmed=True) == without
    assert without[0][0] is not None
    assert without[0][0].moves


async def test_a_warm_up_that_is_not_discarded_counts() -> None:
    """Shows that the test above can fail."""
    async with endpoint_of(**QUIET) as endpoint:
        without = await decided(endpoint, warmed=False)
    async with endpoint_of(**QUIET) as endpoint:
        (peer, *_) = peers = await group(endpoint.channel)
        for peer in peers:
            await Counting(peer).count(WARM_UP, 30)
        deployment = endpoint.deployments.find("d")
        assert deployment.loads.load().tobytes() != without[0][1]
        assert deployment.loads.load().any()


def known(deployment: Deployment) -> bool:
    return bool(deployment.loads.load().any())


async def test_forget_load_discards_the_load_and_nothing_else() -> None:
    async with endpoint_of(**QUIET) as endpoint, AsyncClient(endpoint.address) as client:
        workers = [Counting(peer) for peer in await group(endpoint.channel)]
        deployment = endpoint.deployments.find("d")
        await deployment.rebalance_once()
        for worker in workers:
            await worker.count(WARM_UP, 30)
        await client.forget_load("d")
        assert not known(deployment)
        decision = await deployment.rebalance_once()
        assert decision is not None
        assert decision.reason is Reason.NO_LOAD
        status = (await client.get_deployment("d")).status
        assert status.step == 29
        # What comes after it counts, from where reports had been.
        for worker in workers:
            await worker.count(TRAFFIC[0], 16)
        np.testing.assert_allclose(deployment.loads.load(), GPUS * TRAFFIC[0] / 16)


async def test_a_discarded_load_stays_discarded_after_a_restart(tmp_path: Path) -> None:
    config = make_config(store=str(tmp_path / "trimtab.db"), **QUIET)
    async with App(config) as app, grpc.aio.insecure_channel(app.address) as channel:
        for peer in await group(channel):
            await Counting(peer).count(WARM_UP, 30)
        deployment = app._deployments.find("d")
        await deployment.save_counters()
        async with AsyncClient(app.address) as client:
            await client.forget_load("d")
    async with App(config) as app:
        assert not known(app._deployments.find("d"))


@pytest.mark.parametrize("by", ["workers", "operators"])
async def test_the_history_of_a_warm_up_keeps_its_invariants(tmp_path: Path, by: str) -> None:
    file = tmp_path / "history.jsonl"
    config = make_config(history=str(file), **QUIET)
    async with App(config) as app, grpc.aio.insecure_channel(app.address) as channel:
        workers = [Counting(peer) for peer in await group(channel)]
        for worker in workers:
            await worker.count(WARM_UP, 30)
        if by == "operators":
            async with AsyncClient(app.address) as client:
                await client.forget_load("d")
        for worker in workers:
            await worker.count(WARM_UP, 2, discard=by == "workers")
            await worker.count(TRAFFIC[0], 16)
    events = [json.loads(line) for line in file.read_text().splitlines()]
    gaps = [event["gap"] for event in events if event["kind"] == "report"]
    assert sorted(gaps) == ([0] * 6 if by == "operators" else [0] * 4 + [WARM_UP.sum()] * 2)
    assert ("load_forgotten" in {event["kind"] for event in events}) == (by == "operators")
    assert not check_history(read_history(file.read_text().splitlines())).violations
