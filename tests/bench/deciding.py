"""The cost of a decision, policy and solver together: 58 layers of 256 experts, 288 / 32."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from statistics import median
from typing import NamedTuple

import numpy as np

from tests.bench.loads import realistic
from tests.bench.options import Options
from tests.bench.policy import make_planner
from tests.bench.tables import print_table
from trimtab_protocol.placement import Placement
from trimtab_server.domain.placement import placement_of
from trimtab_server.domain.topology import Topology
from trimtab_server.engine.load_aggregator import TotalCounts
from trimtab_server.engine.next_action import DeploymentSnapshot
from trimtab_server.engine.rebalancer import Rebalancer
from trimtab_server.loads.estimates import Loads
from trimtab_server.loads.evidence import Evidence, Known
from trimtab_server.loads.mixture import LoadMixture
from trimtab_server.policy.policy import Policy
from trimtab_server.solver import place

TOPOLOGY = Topology(288, 32)
CAPTION = (
    "One decision of the loop, in this process, without the wire; and the separate cost of a cell "
    "of 16 steps for the load estimate. `confirmed`: with two halves of the load."
)


def run(options: Options) -> None:
    """Print medians."""
    before_LE = realistic()
    served = placement_of(place(before_LE, TOPOLOGY).phy2log, 256, 32)
    rows = asyncio.run(_rows(before_LE, served, max(5, options.repeats)))
    print_table(
        "A decision", ["what", "ms", "reason", "moves"], [*rows, *_memory(before_LE)], CAPTION
    )


async def _rows(load_LE: Loads, served: Placement, repeats: int) -> list[list[object]]:
    drifted_LE, shifted_LE = 0.7 * load_LE + 0.3 * realistic(seed=1), realistic(seed=1)
    one_LE = load_LE.copy()
    one_LE[0] = shifted_LE[0]
    cases = {
        "nothing has changed": (load_LE, None),
        "one layer has shifted": (one_LE, None),
        "30 % of the load is another": (drifted_LE, None),
        "the same, confirmed": (drifted_LE, np.stack([drifted_LE, drifted_LE]) / 2),
        "all of it is another": (shifted_LE, None),
        "the same, confirmed ": (shifted_LE, np.stack([shifted_LE, shifted_LE]) / 2),
    }
    rows = []
    async with make_planner() as plans:
        for label, (now_LE, halves_HLE) in cases.items():
            loop = Rebalancer(plans, TOPOLOGY, 0, Policy(every_steps=1))
            evidence = Evidence(np.full(58, 1e6), 1.0, halves_HLE)
            took = []
            for step in range(repeats + 2):
                snapshot = DeploymentSnapshot(step + 1.0, step, 1e4, served, served)
                load = _Load(Known(now_LE, evidence))
                began = time.perf_counter()
                decision = (await loop.decide(snapshot, load)).decision
                took.append(time.perf_counter() - began)
            moves = decision.candidate.moves if decision.candidate else 0
            rows.append([label, f"{1e3 * median(took[2:]):.1f}", decision.reason.value, moves])
    return rows


class _Load(NamedTuple):
    """A `LoadSource` of a load that is known."""

    known: Known

    def known_load(self) -> Known:
        return self.known

    def total_counts(self) -> TotalCounts:
        return TotalCounts("w", np.zeros(self.known.load_LE.shape, np.int64))


def _memory(load_LE: Loads) -> Iterator[list[object]]:
    for halves in (1, 2):
        memory, took = LoadMixture(halves, *load_LE.shape), []
        for _ in range(20):
            began = time.perf_counter()
            memory.add(np.stack([load_LE / halves] * halves), 1)
            took.append(time.perf_counter() - began)
        yield [
            f"a cell, {halves} halves" if halves > 1 else "a cell",
            f"{1e3 * median(took):.1f}",
            "-",
            "-",
        ]
