"""A trace served by a real server and real sessions in lockstep, one window after another.

In the replay of a trace, each worker has one GPU and records the tokens of its own slots. A
decision waits until all workers have reported, and the next one is due a window later. An expert
has one byte, so that its move pays however short a step is. So nothing depends on the clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tests.bench.light import LightGroup
from tests.bench.played import STEPS, Played, live
from trimtab_client import (
    AsyncClient,
    Decision,
    Deployment,
    Placement,
    Policy,
    Reason,
    Version,
)
from trimtab_server.domain.topology import Topology

Counts = npt.NDArray[np.int64]
Recorded = Callable[[Placement], Sequence[Counts]]
"""The counts that each worker records in a window, int64 [L, E], under the placement in force."""

PATIENCE_S = 60.0
POLL_S = 0.001

_MOVES = (Reason.IMPROVED, Reason.REPLANNED)


async def serve(
    address: str, deployment: str, load_TLE: Tensor, topology: Topology, policy: Policy
) -> Played:
    """Serve a trace from the untouched layout on, each decision in force before the next window.

    Args:
        address: of a server that makes new deployments active.
        deployment: a name that the server does not know yet.
        load_TLE: counts, [T, L, E].
        topology: slots and GPUs; each is a worker.
        policy: of the deployment; its values replace those of a new deployment.
    """
    layers, experts = load_TLE.shape[1:]
    slots, gpus = topology.num_replicas, topology.num_gpus
    first = Placement.untouched(layers, experts, slots, gpus)
    counts_TLE = load_TLE[:-1].long().numpy()
    recorded = [partial(by_slots, load_LE=now_LE, workers=gpus) for now_LE in counts_TLE]
    placements = await play(LightGroup(address, first, deployment), address, recorded, policy)
    results = [
        live(_tensor(served), _tensor(before), next_LE, topology)
        for (before, served), next_LE in zip(pairwise(placements), load_TLE[1:], strict=True)
    ]
    return Played(*map(list, zip(*results, strict=True)))


async def play(
    group: LightGroup,
    address: str,
    recorded: Iterable[Recorded],
    policy: Policy = Policy(),  # noqa: B008 - it cannot change
) -> list[Placement]:
    """The placements in force at first, and after each window.

    Args:
        group: of a deployment that the server does not know yet; entered here.
        address: of the server, which makes new deployments active.
        recorded: returns the workers' counts of a window, for each window.
        policy: of the deployment; its values replace those of a new deployment.
    """
    deployment = group.deployment
    async with group, AsyncClient(address) as client:
        await group.until_all("in_force", group.placement.digest)
        if policy != Policy():
            await client.update_policy(deployment, policy)
        placements = [group.placement]
        for window, recorded_by in enumerate(recorded):
            last = (window + 1) * STEPS - 1
            version = (await client.get_deployment(deployment)).status.in_force
            counts_WLE = recorded_by(placements[-1])
            # In scope GLOBAL the first worker records for all.
            for session, counts_LE in zip(group.sessions, counts_WLE, strict=False):
                session.record(counts_LE, last - STEPS + 1, last)
            placements.append(await _decided(group, client, deployment, last, version))
    return placements


def by_slots(placement: Placement, load_LE: Counts, workers: int) -> list[Counts]:
    """Tokens by expert that the slots of each worker processed, int64 [L, E]; GPUs are divided."""
    shares_LR = divided(placement, load_LE)
    gpus = np.arange(placement.num_gpus).reshape(workers, -1)
    return [np.sum([counted(placement, shares_LR, gpu) for gpu in own], axis=0) for own in gpus]


def divided(placement: Placement, load_LE: Counts) -> Counts:
    """Tokens of each slot, int64 [L, R]: those of its expert, divided as evenly as possible."""
    copies_LE = placement.logcnt
    least_LE, rest_LE = load_LE // copies_LE, load_LE % copies_LE
    least_LR, rest_LR = (
        np.take_along_axis(each_LE, placement.phy2log.astype(np.int64), axis=1)
        for each_LE in (least_LE, rest_LE)
    )
    shares_LR: Counts = least_LR + (placement.rank < rest_LR)
    return shares_LR


def counted(placement: Placement, shares_LR: Counts, gpu: int) -> Counts:
    """Tokens by expert that the slots of one GPU processed, int64 [L, E]."""
    slots = shares_LR.shape[1] // placement.num_gpus
    own = slice(gpu * slots, (gpu + 1) * slots)
    counts_LE = np.zeros(placement.logcnt.shape, np.int64)
    layers_L1 = np.arange(len(counts_LE))[:, None]
    np.add.at(counts_LE, (layers_L1, placement.phy2log[:, own]), shares_LR[:, own])
    return counts_LE


async def _decided(
    group: LightGroup, client: AsyncClient, deployment: str, last: int, before: Version | None
) -> Placement:
    """The placement in force at all workers after the decision at a step was carried out."""

    def decision_of(known: Deployment) -> Decision | None:
        decision = known.status.last_decision
        if decision is None or decision.step != last or decision.reason is Reason.NOT_READY:
            return None
        return decision

    known = await _until(client, deployment, lambda known: decision_of(known) is not None)
    decision = decision_of(known)
    if decision is not None and decision.reason in _MOVES:
        known = await _until(
            client,
            deployment,
            lambda known: known.status.phase == "idle" and known.status.in_force != before,
        )
    placements = [session.placement for session in group.sessions]
    assert all(each.digest == known.status.digest for each in placements)
    return placements[0]


async def _until(
    client: AsyncClient, deployment: str, holds: Callable[[Deployment], bool]
) -> Deployment:
    async with asyncio.timeout(PATIENCE_S):
        while not holds(known := await client.get_deployment(deployment)):  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)
    return known


def _tensor(placement: Placement) -> Tensor:
    return torch.from_numpy(placement.phy2log.astype(np.int64))
