"""Balanced packing exactly as `balanced_packing` documents it, one comparison at a time."""

from __future__ import annotations

from fractions import Fraction
from itertools import count


def quantised(weights: list[float]) -> list[int]:
    """Weights times the largest power of two that keeps n * max below 2**30, rounded down."""
    exact = [Fraction(w) for w in weights]
    bound = max(exact) * len(exact)
    if bound == 0:
        return [0] * len(exact)
    power = next(p for p in count(30 + 1100, -1) if bound * Fraction(2) ** p < 2**30)
    return [int(w * Fraction(2) ** power) for w in exact]


def hashed(seed: int, restart: int, item: int) -> int:
    """A 32-bit hash of the three."""

    def mix(x: int) -> int:
        x ^= x >> 16
        x = x * 0x7FEB352D % 2**32
        x ^= x >> 15
        x = x * 0x846CA68B % 2**32
        return x ^ (x >> 16)

    seed %= 2**64
    state = mix(mix(seed % 2**32) + (seed >> 32) & 0xFFFFFFFF)
    return mix(mix(state + restart & 0xFFFFFFFF) + item & 0xFFFFFFFF)


def packed(
    weights: list[float],
    num_packs: int,
    *,
    groups: list[int] | None = None,
    top_k: int = 4,
    max_iterations: int | None = 20,
    restarts: int = 1,
    objective: str = "l2",
    seed: int = 0,
    amplitude: int,
) -> list[list[int]]:
    """Items of each pack, by rank."""
    q = quantised(weights)
    best: tuple[int, int] | None = None
    answer: list[list[int]] = []
    for restart in range(restarts):
        keys = [
            w
            * (
                4096
                + (hashed(seed, restart, i) % (2 * amplitude + 1) - amplitude if restart else 0)
            )
            for i, w in enumerate(q)
        ]
        packs = dealt(q, keys, num_packs, groups)
        separated(q, packs, groups)
        step = best_range_swap if objective == "range" else best_l2_swap
        done = 0
        while max_iterations is None or done < max_iterations:
            swap = step(q, packs, groups, top_k)
            if swap is None:
                break
            exchange(packs, swap)
            done += 1
        loads = pack_loads(q, packs)
        score = (max(loads), sum(load * load for load in loads))
        if best is None or score < best:
            best, answer = score, packs
    return answer


def dealt(
    q: list[int], keys: list[int], num_packs: int, groups: list[int] | None
) -> list[list[int]]:
    """Items by descending key, each to the lightest pack with room and without its group."""
    packs: list[list[int]] = [[] for _ in range(num_packs)]
    room = len(q) // num_packs
    for item in sorted(range(len(q)), key=lambda i: (-keys[i], i)):
        open_packs = [p for p in range(num_packs) if len(packs[p]) < room]
        if groups is not None:
            clean = [p for p in open_packs if groups[item] not in [groups[i] for i in packs[p]]]
            open_packs = clean or open_packs
        lightest = min(open_packs, key=lambda p: (sum(q[i] for i in packs[p]), p))
        packs[lightest].append(item)
    return packs


def doubled(packs: list[list[int]], groups: list[int]) -> int:
    """How many items share a pack with an earlier one of their group."""
    return sum(len(pack) - len({groups[i] for i in pack}) for pack in packs)


def separated(q: list[int], packs: list[list[int]], groups: list[int] | None) -> None:
    """Swap doubled items, one after another, while that lowers their number; in place."""
    while groups is not None and any(separate_one(q, packs, groups, a, i) for a, i in slots(packs)):
        pass


def separate_one(q: list[int], packs: list[list[int]], groups: list[int], a: int, i: int) -> bool:
    """Swap the item at rank i of pack a, if it is doubled, with the item that costs least."""
    before = doubled(packs, groups)
    group = groups[packs[a][i]]
    if [groups[x] for x in packs[a]].count(group) < 2:
        return False
    best = None
    for b, j in slots(packs):
        if a == b or groups[packs[b][j]] == group:
            continue
        gain = squares(q, packs)
        exchange(packs, (a, i, b, j))
        gain -= squares(q, packs)
        fewer = doubled(packs, groups) < before
        exchange(packs, (a, i, b, j))
        if fewer and (best is None or gain > best[0]):
            best = (gain, (a, i, b, j))
    if best is not None:
        exchange(packs, best[1])
    return best is not None


Swap = tuple[int, int, int, int]


def best_l2_swap(
    q: list[int], packs: list[list[int]], groups: list[int] | None, top_k: int
) -> Swap | None:
    """The swap between heavy and light packs that lowers the sum of squares most."""
    loads = pack_loads(q, packs)
    heavy = sorted(range(len(packs)), key=lambda p: (-loads[p], p))[:top_k]
    light = sorted(range(len(packs)), key=lambda p: (loads[p], p))[:top_k]
    best, found = 0, None
    for a in heavy:
        for b in light:
            if a == b:
                continue
            for swap in pair_swaps(packs, groups, a, b):
                delta = q[packs[a][swap[1]]] - q[packs[b][swap[3]]]
                after = (loads[a] - delta) ** 2 + (loads[b] + delta) ** 2
                gain = loads[a] ** 2 + loads[b] ** 2 - after
                if gain > best:
                    best, found = gain, swap
    return found


def best_range_swap(
    q: list[int], packs: list[list[int]], groups: list[int] | None, top_k: int
) -> Swap | None:
    """The swap that brings the heaviest and the lightest pack closest together."""
    loads = pack_loads(q, packs)
    a = min(range(len(packs)), key=lambda p: (-loads[p], p))
    b = min(range(len(packs)), key=lambda p: (loads[p], p))
    best, found = loads[a] - loads[b], None
    for swap in pair_swaps(packs, groups, a, b) if a != b else []:
        delta = q[packs[a][swap[1]]] - q[packs[b][swap[3]]]
        gap = abs(loads[a] - loads[b] - 2 * delta)
        if gap < best:
            best, found = gap, swap
    return found


def pair_swaps(packs: list[list[int]], groups: list[int] | None, a: int, b: int) -> list[Swap]:
    """All swaps of one item of a and one of b that bring no two of a group together."""
    swaps = []
    for i, u in enumerate(packs[a]):
        for j, v in enumerate(packs[b]):
            if groups is not None:
                others_a = [groups[x] for x in packs[a] if x != u]
                others_b = [groups[x] for x in packs[b] if x != v]
                if groups[u] in others_b or groups[v] in others_a:
                    continue
            swaps.append((a, i, b, j))
    return swaps


def exchange(packs: list[list[int]], swap: Swap) -> None:
    """Apply a swap; applying it again undoes it."""
    a, i, b, j = swap
    packs[a][i], packs[b][j] = packs[b][j], packs[a][i]


def slots(packs: list[list[int]]) -> list[tuple[int, int]]:
    """All (pack, rank), in order."""
    return [(p, r) for p, pack in enumerate(packs) for r in range(len(pack))]


def pack_loads(q: list[int], packs: list[list[int]]) -> list[int]:
    """Weight of each pack."""
    return [sum(q[i] for i in pack) for pack in packs]


def squares(q: list[int], packs: list[list[int]]) -> int:
    """Sum of squared pack weights."""
    return sum(load * load for load in pack_loads(q, packs))
