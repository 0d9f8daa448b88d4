"""Fails if a kernel is compiled after `Planner.warm`. Run by test_planner."""

from __future__ import annotations

import asyncio
import sys

import numpy as np
import torch
from numba.core.dispatcher import Dispatcher

from tests.recording import Recording
from trimtab_server.domain.topology import Topology
from trimtab_server.engine.config import Limits
from trimtab_server.engine.plan_request import Options, Terms
from trimtab_server.engine.planner import Planner
from trimtab_server.engine.queue import SolverQueue
from trimtab_server.solver.backends.cpu.backend import Cpu
from trimtab_server.solver.budget import Budget

OPTIONS = (
    Options("fast"),
    Options(overrides={"tolerance": 0, "restarts": 3, "objective": "range"}),
)
GLOBAL, FEW_DEALS, MANY_DEALS = Topology(20, 4), Topology(24, 4, 2, 8), Topology(32, 8, 4, 16)


def compiled() -> dict[str, int]:
    """For how many signatures each function has been compiled."""
    return {
        f"{name}.{function.__name__}": len(function.signatures)
        for name, module in list(sys.modules.items())
        if name.startswith("trimtab_server.solver.backends.cpu.")
        for function in vars(module).values()
        if isinstance(function, Dispatcher)
    }


async def main() -> None:
    """Warm up, then send requests of every kind."""
    observer = Recording()
    queue = SolverQueue(4, observer)
    planner = Planner(queue, Cpu(), torch.device("cpu"), Limits(), "balanced", observer)
    await planner.warm()
    warm = compiled()
    assert sum(warm.values()) > 0
    load, other = np.random.default_rng(0).gamma(0.5, 100, (2, 3, 16))
    for options in OPTIONS:
        await planner.pack(load.astype(np.int32), 4, np.arange(48).reshape(3, 16) % 5, options)
        for topology in (GLOBAL, FEW_DEALS, MANY_DEALS):
            await planner.place(load, Terms(topology, options=options))
    for topology in (GLOBAL, FEW_DEALS):
        current = (await planner.place(load, Terms(topology))).placement
        for budget in (None, Budget(3, 5), Budget(3, None, 0, 2)):
            await planner.place(other, Terms(topology, budget), current)
    added = {name: count for name, count in compiled().items() if count != warm.get(name)}
    assert not added, added
    await queue.close()


if __name__ == "__main__":
    asyncio.run(main())
