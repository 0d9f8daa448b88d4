"""Random placements and loads for tests."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from hypothesis import strategies as st
from torch import Tensor

from tests.oracles import packing as oracle
from trimtab_server.domain.topology import Topology
from trimtab_server.solver import Settings

Floats = npt.NDArray[np.float64]


@st.composite
def placed_loads(
    draw: st.DrawFn, max_gpus: int = 4, max_load: int = 1000
) -> tuple[list[list[int]], list[list[float]], int]:
    """`phy2log` without doubled experts, `load`, and the number of GPUs."""
    gpus, slots = draw(st.integers(1, max_gpus)), draw(st.integers(1, 4))
    layers = draw(st.integers(1, 3))
    lowest = -(-gpus * slots // gpus)
    experts = draw(st.integers(max(lowest, slots), gpus * slots))
    amount = st.integers(0, max_load).map(float)
    loads = draw(
        st.lists(
            st.lists(amount, min_size=experts, max_size=experts), min_size=layers, max_size=layers
        )
    )
    return [draw(phy2logs(experts, gpus, slots)) for _ in range(layers)], loads, gpus


@st.composite
def phy2logs(draw: st.DrawFn, experts: int, gpus: int, slots: int) -> list[int]:
    """One layer: every expert somewhere, none twice on a GPU."""
    extra = draw(
        st.lists(
            st.integers(0, experts - 1),
            min_size=gpus * slots - experts,
            max_size=gpus * slots - experts,
        )
    )
    replicas = [*range(experts), *extra]
    count = {e: replicas.count(e) for e in replicas}
    replicas = [e for e in replicas if count[e] <= gpus] + spread(replicas, count, experts, gpus)
    order = draw(st.permutations(replicas))
    packs = [order[g * slots : (g + 1) * slots] for g in range(gpus)]
    items = [[g * slots + s for s in range(slots)] for g in range(gpus)]
    flat = [e for pack in packs for e in pack]
    oracle.separated([0] * len(flat), items, flat)
    return [flat[i] for pack in items for i in pack]


@st.composite
def shared_layers(draw: st.DrawFn) -> tuple[list[int], list[float], Topology]:
    """Slots, loads and topology of one layer in which most experts lie on several of few GPUs.

    Some may lie on one twice.
    """
    nodes, per_node = draw(st.sampled_from([(1, 2), (1, 3), (1, 4), (2, 1), (2, 2)]))
    groups, slots = draw(st.sampled_from([1, nodes])), draw(st.integers(2, 4))
    replicas = nodes * per_node * slots
    experts = groups * draw(st.integers(1, 2 * replicas // 3 // groups))
    amount = st.sampled_from([0, 1, 10, 1000]) | st.integers(0, 1000)
    loads = draw(st.lists(amount.map(float), min_size=experts, max_size=experts))
    (row,) = starts(1, experts, replicas, draw(SEEDS)).tolist()
    return row, loads, Topology(replicas, nodes * per_node, nodes, groups)


def spread(replicas: list[int], count: dict[int, int], experts: int, gpus: int) -> list[int]:
    """Replacements for the replicas of experts that have more of them than GPUs."""
    over = [e for e in count if count[e] > gpus]
    fixed: list[int] = [e for e in over for _ in range(gpus)]
    missing = sum(count[e] - gpus for e in over)
    others = {e: count.get(e, 0) if e not in over else gpus for e in range(experts)}
    for _ in range(missing):
        least = min(others, key=lambda e: (others[e], e))
        others[least] += 1
        fixed.append(least)
    return fixed


def _any_size(rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
    return np.exp2(rng.uniform(-1074, 1000, shape))


AMOUNTS: dict[str, Callable[[np.random.Generator, tuple[int, int]], Floats]] = {
    "ties": lambda rng, shape: rng.integers(0, 5, shape).astype(float),
    "counts": lambda rng, shape: rng.integers(0, 10**12, shape).astype(float),
    "fractions": lambda rng, shape: rng.random(shape),
    "skewed": lambda rng, shape: rng.random(shape) ** 8,
    "one hot": lambda _, shape: np.roll(np.eye(*shape), 1, 1) * 1e12,
    "zero": lambda _, shape: np.zeros(shape),
    "huge": lambda rng, shape: rng.random(shape) * 1e300,
    "subnormal": lambda rng, shape: rng.integers(0, 4, shape) * 5e-324,
    "any size": _any_size,
}
"""Makers of loads or weights, by kind."""

KINDS = st.sampled_from(list(AMOUNTS))
SEEDS = st.integers(0, 2**32 - 1)


def amounts(kind: str, rows: int, columns: int, seed: int) -> Tensor:
    """Loads or weights of one kind, float64 [rows, columns]."""
    return torch.from_numpy(AMOUNTS[kind](np.random.default_rng(seed), (rows, columns)))


def any_settings() -> st.SearchStrategy[Settings]:
    """Settings of packings: ordinary and extreme values of each field."""
    return st.builds(
        Settings,
        top_k=st.sampled_from([1, 2, 3, 4, 5, 8, 100]),
        max_iterations=st.sampled_from([None, 0, 1, 7]),
        restarts=st.integers(1, 5),
        objective=st.sampled_from(["l2", "range"]),
        seed=st.integers(-(2**70), 2**70),
        tolerance=st.sampled_from([0.0, 0.01, 0.5]),
    )


@st.composite
def topologies(draw: st.DrawFn) -> tuple[Topology, int]:
    """A topology, global or hierarchical, and a number of experts that fit."""
    nodes, per_node, slots = draw(
        st.tuples(st.sampled_from([1, 1, 2, 3, 4]), st.integers(1, 3), st.integers(1, 5))
    )
    gpus = nodes * per_node
    groups = draw(
        st.sampled_from([b for b in (1, nodes, 2 * nodes, 4 * nodes) if b <= gpus * slots])
    )
    experts = groups * draw(st.integers(1, gpus * slots // groups))
    return Topology(gpus * slots, gpus, nodes, groups), experts


def starts(layers: int, experts: int, slots: int, seed: int) -> Tensor:
    """Placements int64 [L, R] that hold every expert, some twice on one GPU."""
    rng = np.random.default_rng(seed)
    rows = [
        rng.permutation([*range(experts), *rng.integers(0, experts, slots - experts)])
        for _ in range(layers)
    ]
    return torch.tensor(np.stack(rows))
