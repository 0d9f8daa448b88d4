"""A server's deployments without sockets: a test says what their workers say."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.recording import Recording
from tests.servers import make_config
from trimtab_protocol.messages import Applied, Hello, Prepared, Report
from trimtab_server.domain.placement import placement_of
from trimtab_server.domain.topology import Topology
from trimtab_server.engine.config import Limits
from trimtab_server.engine.deployment import Deployment
from trimtab_server.engine.deployment_spec import DeploymentSpec
from trimtab_server.engine.deployments import Deployments
from trimtab_server.engine.join_request import JoinRequest
from trimtab_server.engine.observer import Observer
from trimtab_server.engine.planner import Planner
from trimtab_server.engine.queue import SolverQueue
from trimtab_server.engine.sessions import WorkerSession
from trimtab_server.engine.store_thread import StoreThread
from trimtab_server.history.config import HistoryConfig
from trimtab_server.history.history import History
from trimtab_server.solver.backends.reference.backend import Reference
from trimtab_server.store.failpoints import configure
from trimtab_server.store.memory import MemoryDisk, MemoryStore
from trimtab_server.store.sqlite import SqliteStore
from trimtab_tools.history import check_history, read_history

# Three layers of 8 experts in 12 slots, three on each of four GPUs.
SPEC = DeploymentSpec(Topology(num_replicas=12, num_gpus=4), 3, 8, "local", "pull", 100)
UNTOUCHED = placement_of(np.tile(np.arange(12) % 8, (3, 1)), 8, 4)
OTHER = placement_of(np.tile(np.arange(12)[::-1] % 8, (3, 1)), 8, 4)
SKEWED = np.random.default_rng(0).gamma(0.5, 1000.0, (3, 8)).astype(np.int64)

W0, W1 = {"worker": "w0", "gpus": (0, 1)}, {"worker": "w1", "gpus": (2, 3)}
"""What two workers say that share the GPUs."""


@asynccontextmanager
async def planning() -> AsyncIterator[Planner]:
    """A planner with the reference's backend."""
    observer = Recording()
    queue = SolverQueue(4, observer)
    yield Planner(queue, Reference(), torch.device("cpu"), Limits(), "fast", observer)
    await queue.close()


@asynccontextmanager
async def server(
    disk: MemoryDisk | Path | None = None, observer: Observer | None = None, **settings: object
) -> AsyncIterator[Deployments]:
    """A server that rebalances only when the test tells it to, with its store on a disk."""
    config = make_config(**{"report_seconds": 3000, "lease_seconds": 3600, **settings})
    store = StoreThread(lambda: SqliteStore(disk) if isinstance(disk, Path) else MemoryStore(disk))
    observer = observer or History(HistoryConfig())
    async with planning() as planner:
        deployments = Deployments(config.sessions, store, observer, planner)
        await deployments.open()
        try:
            yield deployments
        finally:
            await deployments.close()


@asynccontextmanager
async def recorded(folder: Path, **settings: object) -> AsyncIterator[Deployments]:
    """A server with its store and its history in the folder. Its history breaks no rule."""
    with closing(History(HistoryConfig(str(folder / "history.jsonl")))) as history:
        async with server(folder / "trimtab.db", history, **settings) as deployments:
            yield deployments
    with (folder / "history.jsonl").open("rb") as lines:
        assert not check_history(read_history(lines)).violations


@contextmanager
def failing(point: str, only: str = "") -> Iterator[None]:
    """The store fails at this point; with "@2", only the second time."""
    configure(f"{point}=error{only}")
    try:
        yield
    finally:
        configure("")


async def joined(
    deployments: Deployments, name: str = "d", spec: DeploymentSpec = SPEC, **said: Any
) -> tuple[Deployment, WorkerSession]:
    """A worker that owns all GPUs, with these fields of its Hello said otherwise.

    It may also say its room in `staging_slots` and `max_layers`.
    """
    room, layers = said.pop("staging_slots", 12), said.pop("max_layers", 0)
    gpus = tuple(range(spec.topology.num_gpus))
    usual = {"group_id": "g", "worker": "w", "incarnation": 1, "stream": 1, "gpus": gpus}
    hello = Hello(**{**usual, "placement": UNTOUCHED, **said})
    return await deployments.join(JoinRequest(name, spec, hello, room, layers))


def reported(deployment: Deployment, worker: WorkerSession, seq: int = 1, counts_LE=SKEWED) -> None:
    """Report the same load in a hundred more steps."""
    last = 100 * seq - 1
    deployment.workers.report(worker, Report(seq, last - 99, last, counts_LE * seq))


async def loaded(
    deployments: Deployments, counts_LE=SKEWED, **said: Any
) -> tuple[Deployment, WorkerSession]:
    """A worker that has joined and reported, where the time of a step has become known."""
    deployment, worker = await joined(deployments, **said)
    await deployment.rebalance_once()
    reported(deployment, worker, counts_LE=counts_LE)
    return deployment, worker


@asynccontextmanager
async def serving(
    server: AbstractAsyncContextManager[Deployments], **said: Any
) -> AsyncIterator[tuple[Deployment, WorkerSession]]:
    """A deployment of this server, and the session of its only worker."""
    async with server as deployments:
        yield await joined(deployments, **said)


async def answer(deployment: Deployment, worker: WorkerSession, kind: Any, *more: object) -> None:
    """Say this kind of message about the open switch."""
    switch = deployment.rollout.record.switch
    await deployment.workers.answer(worker, kind(switch.version, switch.placement.digest, *more))


async def one_switch(deployment: Deployment, worker: WorkerSession, step: int = 1000) -> None:
    """Carry out the open switch."""
    await answer(deployment, worker, Prepared)
    await answer(deployment, worker, Applied, step)


async def carried_out(deployment: Deployment, worker: WorkerSession) -> None:
    """Carry out the open switch, and those that follow it."""
    for step in itertools.count(1000):
        if deployment.rollout.record.switch is None:
            return
        await one_switch(deployment, worker, step)
