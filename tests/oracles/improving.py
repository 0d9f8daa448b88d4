"""`improve` for one layer by brute force: every step is tried and judged from scratch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from fractions import Fraction

from tests.oracles.packing import quantised

Step = tuple[tuple[int, int], ...]  # (slot, expert) pairs to write


def gpu_loads(slots: list[int], q: list[int], gpus: int) -> list[int]:
    """Load of each GPU, where a replica weighs its expert's load // replicas."""
    count = Counter(slots)
    per = len(slots) // gpus
    return [sum(q[e] // count[e] for e in slots[g * per : (g + 1) * per]) for g in range(gpus)]


def held(slots: list[int], gpus: int) -> list[set[int]]:
    """Experts of each GPU."""
    per = len(slots) // gpus
    return [set(slots[g * per : (g + 1) * per]) for g in range(gpus)]


def net_moves(start: list[int], slots: list[int], gpus: int) -> int:
    """Experts on a GPU that did not hold them at the start."""
    return sum(
        len(new - old) for new, old in zip(held(slots, gpus), held(start, gpus), strict=True)
    )


def steps(slots: list[int], loads: list[int], gpus: int, top_k: int) -> Iterator[Step]:
    """Swaps from heavy to light GPUs, then transfers, in the order that settles ties."""
    per = len(slots) // gpus
    heavy = sorted(range(gpus), key=lambda g: (-loads[g], g))[:top_k]
    light = sorted(range(gpus), key=lambda g: (loads[g], g))[:top_k]
    here = held(slots, gpus)
    for r in [g * per + s for g in heavy for s in range(per)]:
        for s in [g * per + s for g in light for s in range(per)]:
            if slots[r] not in here[s // per] and slots[s] not in here[r // per]:
                yield (r, slots[s]), (s, slots[r])
    count = Counter(slots)
    for r, e in enumerate(slots):
        for f in sorted(set().union(*(here[g] for g in heavy))):
            if count[e] > 1 and f not in here[r // per]:
                yield ((r, f),)


def improved(
    start: list[int],
    loads: list[float],
    gpus: int,
    max_moves: int,
    min_gain: Fraction,
    top_k: int,
) -> list[int]:
    """The expert in each slot after the best steps, before slots are tidied up."""
    q = quantised(loads)
    slots = list(start)
    while True:
        now = gpu_loads(slots, q, gpus)
        mean = Fraction(max(sum(now), gpus), gpus)
        spent = net_moves(start, slots, gpus)
        best, found = Fraction(0), None
        for step in steps(slots, now, gpus, top_k):
            after = list(slots)
            for slot, expert in step:
                after[slot] = expert
            then = gpu_loads(after, q, gpus)
            cost = net_moves(start, after, gpus) - spent
            gain = (sum(x * x for x in now) - sum(x * x for x in then)) / mean**2
            if gain <= 0 or spent + cost > max_moves or gain < min_gain * cost:
                continue
            if len(step) == 1 and not _fits(slots, after, q, gpus, max(now)):
                continue
            score = gain / max(Fraction(cost), Fraction(1, 2**40))
            if score > best:
                best, found = score, after
        if found is None:
            return slots
        slots = found


def _fits(slots: list[int], after: list[int], q: list[int], gpus: int, peak: int) -> bool:
    """Whether a transfer keeps every GPU under the peak, even without what f relieves."""
    slot = next(r for r in range(len(slots)) if slots[r] != after[r])
    e, f = slots[slot], after[slot]
    count = Counter(slots)
    per = len(slots) // gpus
    rise = q[e] // (count[e] - 1) - q[e] // count[e]
    loads = gpu_loads(slots, q, gpus)
    for g in range(gpus):
        copies = after[g * per : (g + 1) * per].count(e)
        load = loads[g] + rise * copies
        if g == slot // per:
            load += q[f] // (count[f] + 1) - q[e] // count[e]
            if load > peak:
                return False
        elif copies and load > peak:
            return False
    return True
