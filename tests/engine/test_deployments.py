"""Deployments over a store that outlives them: what a restarted server goes on with."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

from tests.rpc.peers import AFTER, BEFORE
from tests.servers import make_config
from trimtab_client.history import check_history, read_history
from trimtab_server.domain.errors import FailedPreconditionError, ResourceExhaustedError
from trimtab_server.domain.placement import Placement
from trimtab_server.domain.topology import Topology
from trimtab_server.domain.version import Version
from trimtab_server.engine.arrival import Arrival, Facts
from trimtab_server.engine.deployments import Deployments
from trimtab_server.engine.store_thread import StoreThread
from trimtab_server.history import History
from trimtab_server.loads.counters import Report
from trimtab_server.rollout.messages import (
    Applied,
    Commit,
    Held,
    HeldState,
    Hello,
    Prepared,
    Welcome,
)
from trimtab_server.rollout.rollout import Phase
from trimtab_server.store.failpoints import configure
from trimtab_server.store.sqlite import SqliteStore

FACTS = Facts(Topology(6, 2), 2, 4, "local", "pull", 100)


def arrival(name: str = "d", facts: Facts = FACTS, stream: int = 1, **said: Any) -> Arrival:
    """One worker that owns both GPUs."""
    hello = Hello("g", "w", 1, stream, (0, 1), said.pop("serves", BEFORE), **said)
    return Arrival(name, facts, hello, 6, 0)


@asynccontextmanager
async def server(folder, **settings) -> AsyncIterator[Deployments]:
    """A start of the server, with a store and a history in the folder."""
    config = make_config(**settings).sessions
    history = History(str(folder / "history.jsonl"))
    store = StoreThread(lambda: SqliteStore(folder / "trimtab.db"))
    deployments = Deployments(config, store, history)
    await deployments.open()
    try:
        yield deployments
    finally:
        await deployments.close()
        history.close()


def verdict(folder) -> list[str]:
    with (folder / "history.jsonl").open("rb") as lines:
        return [str(violation) for violation in check_history(read_history(lines)).violations]


def report(seq: int, tokens: int) -> Report:
    return Report(seq, seq, seq, np.full((2, 4), tokens))


async def test_a_commit_survives_the_server_and_is_sent_again(tmp_path):
    async with server(tmp_path) as deployments:
        deployment, worker = await deployments.join(arrival())
        await deployment.move_to(AFTER)
        version = deployment.rollout.record.switch.version
        await deployment.answer(worker, Prepared(version, AFTER.digest))
        assert deployment.rollout.phase is Phase.COMMITTED
        term = deployments.term
    async with server(tmp_path) as deployments:
        assert deployments.term == term + 1
        held = Held(version, HeldState.PREPARED)
        deployment, worker = await deployments.join(arrival(in_force=Version(1, 0), held=held))
        orders = [(await worker.mailbox.take())[1] for _ in ("welcome", "switch")]
        assert orders == [Welcome(Version(1, 0), BEFORE.digest), Commit(version, AFTER.digest)]
        await deployment.answer(worker, Applied(version, AFTER.digest, 7))
        assert deployment.rollout.record.in_force == version
    assert verdict(tmp_path) == []


async def test_counts_go_on_from_what_was_saved(tmp_path):
    async with server(tmp_path) as deployments:
        deployment, worker = await deployments.join(arrival())
        deployment.report(worker, report(1, 10))
        await deployment.save_counters()
        # Not saved when the server dies; the next difference covers it.
        configure("save_counters:before=error")
        deployment.report(worker, report(2, 15))
        try:
            await deployments.close()
        finally:
            configure("")
    async with server(tmp_path) as deployments:
        deployment, worker = await deployments.join(arrival(stream=2))
        assert deployment.report(worker, report(3, 30)) == 3
        assert deployment.load().tolist() == [[30.0] * 4] * 2
    assert verdict(tmp_path) == []


async def test_a_stored_deployment_keeps_its_sizes(tmp_path):
    async with server(tmp_path) as deployments:
        await deployments.join(arrival())
    wider = Placement.of(np.array([[0, 1, 2, 3] * 2]), 4, 2)
    facts = Facts(Topology(8, 2), 1, 4, "local", "pull", 100)
    async with server(tmp_path) as deployments:
        with pytest.raises(FailedPreconditionError, match=r"\(2, 6, 4, 2\), not \(1, 8, 4, 2\)"):
            await deployments.join(arrival(facts=facts, serves=wider))


async def test_more_deployments_than_there_may_be_are_refused(tmp_path):
    async with server(tmp_path, max_deployments=1) as deployments:
        await deployments.join(arrival("one"))
        with pytest.raises(ResourceExhaustedError, match="1 deployments are"):
            await deployments.join(arrival("two"))
