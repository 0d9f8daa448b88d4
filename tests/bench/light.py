"""A group of many light workers: real sessions on one event loop, without weights."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Self

import numpy as np

from trimtab_client import (
    AsyncWorkerSession,
    Placement,
    Scope,
    StateEvent,
    Topology,
    WorkerOptions,
)

LAYERS = 4
STEP_S = 0.001
"""Duration of an engine's step, during which the event loop is free."""
DEPLOYMENT = "light"


def small(workers: int) -> Placement:
    """A placement for this many workers: two slots each, with one expert for each slot."""
    return Placement.untouched(LAYERS, workers, 2 * workers, workers)


class LightGroup:
    """All workers of a group. An asynchronous context manager.

    They step together and copy no weights, so a switch takes the time of the server, the
    sessions and the wire. They have room for any plan in one switch.

    Args:
        target: address of the server.
        placement: the one that they load at first.
        deployment: its name.
        workers: their number; each owns equally many GPUs. None for one worker per GPU.
        scope: of their counts.

    Attributes:
        placement: the one that they loaded at first.
        deployment: its name.
        sessions: of the workers, in the order of their GPUs.
    """

    def __init__(
        self,
        target: str,
        placement: Placement,
        deployment: str = DEPLOYMENT,
        workers: int | None = None,
        scope: Scope = Scope.LOCAL,
    ) -> None:
        self.placement = placement
        self.sessions: list[AsyncWorkerSession] = []
        self._target = target
        self.deployment = deployment
        self._workers = workers or placement.num_gpus
        self._scope = scope
        self._events: asyncio.Queue[StateEvent] = asyncio.Queue()
        self._barrier = asyncio.Barrier(self._workers)
        self._brought: list[Sequence[int]] = []
        self._least: tuple[int, ...] = ()

    async def __aenter__(self) -> Self:
        self._closing = AsyncExitStack()
        for index in range(self._workers):
            session = AsyncWorkerSession(
                self._target,
                self._options(index),
                on_offer=lambda _: True,
                on_abort=lambda _: None,
                on_state=self._events.put_nowait,
                barrier=self._agree,
            )
            self.sessions.append(await self._closing.enter_async_context(session))
        self._stepping = asyncio.create_task(self._step())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stepping.cancel()
        await asyncio.gather(self._stepping, return_exceptions=True)
        await self._closing.aclose()

    async def until_all(self, kind: str, digest: bytes) -> None:
        """Wait until every worker has reported an event of this kind with that placement."""
        seen: set[str] = set()
        while len(seen) < self._workers:
            event = await self._events.get()
            if event.kind == kind and event.values["digest"] == digest:
                seen.add(event.values["worker"])

    def swapped(self, seed: int) -> Placement:
        """The first placement with two slots of each layer exchanged."""
        rng = np.random.default_rng(seed)
        rows = self.placement.phy2log.copy()
        for row in rows:
            one, other = rng.choice(len(row), 2, replace=False)
            row[[one, other]] = row[[other, one]]
        return Placement.of(rows, self.placement.num_experts, self._workers)

    def _options(self, index: int) -> WorkerOptions:
        slots, gpus = self.placement.phy2log.shape[1], self.placement.num_gpus
        each = gpus // self._workers
        return WorkerOptions(
            deployment=self.deployment,
            worker=f"worker {index}",
            topology=Topology(slots, gpus),
            placement=self.placement,
            scope=self._scope,
            bytes_per_expert=1,
            gpus=tuple(range(index * each, (index + 1) * each)),
            group_id="group",
            staging_slots=self.placement.phy2log.size // gpus,
        )

    async def _step(self) -> None:
        for step in itertools.count():
            boundaries = (session.at_step_boundary(step) for session in self.sessions)
            flips = await asyncio.gather(*boundaries)
            for session, flip in zip(self.sessions, flips, strict=True):
                if flip is not None:
                    session.applied()
            await asyncio.sleep(STEP_S)

    async def _agree(self, values: Sequence[int]) -> Sequence[int]:
        self._brought.append(values)
        if await self._barrier.wait() == 0:
            self._least = tuple(map(min, zip(*self._brought, strict=True)))
            self._brought = []
        await self._barrier.wait()
        return self._least
