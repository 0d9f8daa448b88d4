"""Many deployments with drifting loads, each with one light worker that owns all GPUs.

`python -m tests.bench.drifting ADDRESS NUMBER` prints "ready" once all placements are in force,
and ends when its standard input ends.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import random
import sys

import numpy as np
import numpy.typing as npt

from tests.bench.loads import realistic
from trimtab_client import AsyncWorkerSession, Placement, Scope, StateEvent, Topology, WorkerOptions

LAYERS, EXPERTS, SLOTS, GPUS = 58, 256, 288, 32
STEPS_A_SECOND = 32
BOUNDARIES_A_SECOND = 8
"""Steps end more often, but only at these boundaries the worker asks for a flip."""
CYCLE_S = 60.0
"""The time from one load to another and back, as fast as the domains of `gptoss20b_phases`."""


def name_of(number: int) -> str:
    """The name of a deployment."""
    return f"crowd {number}"


class Drift:
    """Counts per second of a load that drifts back and forth between two loads."""

    def __init__(self, number: int) -> None:
        self._ends = realistic(seed=2 * number), realistic(seed=2 * number + 1)
        self._rng = np.random.default_rng(number)
        self._phase = 2 * math.pi * self._rng.random()

    def second(self, at: float) -> npt.NDArray[np.int64]:
        """The counts of the second before this time, [L, E]."""
        share = (1 + math.sin(self._phase + 2 * math.pi * at / CYCLE_S)) / 2
        one_LE, other_LE = self._ends
        return self._rng.poisson(share * one_LE + (1 - share) * other_LE)


async def serve(address: str, number: int, first: Placement, ready: asyncio.Semaphore) -> None:
    """Run the worker of one deployment until cancelled."""

    def tell(event: StateEvent) -> None:
        if event.kind == "in_force":
            ready.release()

    options = WorkerOptions(
        deployment=name_of(number),
        worker="worker",
        topology=Topology(SLOTS, GPUS),
        placement=first,
        scope=Scope.GLOBAL,
        bytes_per_expert=1,
        staging_slots=LAYERS * SLOTS // GPUS,
    )
    drift = Drift(number)
    # Otherwise all workers would count at the same time.
    await asyncio.sleep(random.random())
    async with AsyncWorkerSession(
        address, options, on_offer=lambda _: True, on_abort=lambda _: None, on_state=tell
    ) as session:
        clock = asyncio.get_running_loop().time
        begun, each = clock(), STEPS_A_SECOND // BOUNDARIES_A_SECOND
        for boundary in itertools.count():
            step = each * boundary
            if await session.at_step_boundary(step) is not None:
                session.applied()
            if step and step % STEPS_A_SECOND == 0:
                counts_LE = drift.second(clock())
                session.record(counts_LE, step - STEPS_A_SECOND, step - 1)
            await asyncio.sleep(begun + (boundary + 1) / BOUNDARIES_A_SECOND - clock())


async def main(address: str, number: int) -> None:
    """Run all deployments until the standard input ends."""
    ready = asyncio.Semaphore(0)
    first = Placement.untouched(LAYERS, EXPERTS, SLOTS, GPUS)
    async with asyncio.TaskGroup() as workers:
        running = [
            workers.create_task(serve(address, each, first, ready)) for each in range(number)
        ]
        for _ in range(number):
            await ready.acquire()
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        for task in running:
            task.cancel()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
