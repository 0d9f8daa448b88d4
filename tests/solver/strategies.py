"""Random placements and loads for tests."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.oracles import packing as oracle


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
