"""`improve` for one layer by brute force: every step is applied, and the result is evaluated.

This is the contract for backends. From the placement at the start, one step is taken after
another. A step swaps a slot on one of the K heaviest GPUs with a slot on one of the K lightest, or
gives any slot to an expert of the K heaviest GPUs. It is allowed if, after it,

- every expert still has a slot;
- no GPU has gained a second replica of an expert;
- no router group has an expert on a node that held none of the group at the start;
- no GPU weighs more than the heaviest GPU did before the step;
- the net moves from the start are within the budget.

It is worth its moves if the sum of squared GPU loads falls by at least `min_gain` for each net
move, where the mean GPU load is 1. Of these steps, the one that gains most per net move is taken;
ties go to the first in the order of `candidates`. Steps are taken until there is none.

`is_allowed` and `score` do not know the kind of a step: they see only the slots before and after
it, and compute all loads again. Loads are integers; a replica weighs the load of its expert //
the number of replicas.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

Slots = list[int]
"""The expert in each slot."""


@dataclass(frozen=True)
class Problem:
    """A layer at the start, and the rules for its steps.

    Attributes:
        start: the expert in each slot.
        weights: the whole load of each expert, an integer.
        gpus: number of GPUs, which have equally many slots.
        max_moves: net moves allowed; None for no limit.
        min_gain: the gain that each net move needs.
        top_k: K.
        nodes: number of nodes, which have equally many GPUs.
        groups: router groups of consecutive experts; 1 without groups.
        cross_node_cost: the cost of a move from another node.
    """

    start: Slots
    weights: list[int]
    gpus: int
    max_moves: int | None = None
    min_gain: Fraction = Fraction(0)
    top_k: int = 4
    nodes: int = 1
    groups: int = 1
    cross_node_cost: Fraction = Fraction(1)


def path(problem: Problem) -> list[Slots]:
    """The slots at the start and after each step, until no step is left."""
    slots: Slots | None = problem.start
    taken = []
    while slots is not None:
        taken.append(slots)
        slots = best_step(problem, slots)
    return taken


def best_step(problem: Problem, slots: Slots) -> Slots | None:
    """The slots after the best step that is allowed and worth its moves; None without one."""
    best, found = Fraction(0), None
    for after in candidates(problem, slots):
        rated = score(problem, slots, after)
        if rated > best and is_allowed(problem, slots, after):
            best, found = rated, after
    return found


def candidates(problem: Problem, slots: Slots) -> Iterator[Slots]:
    """The slots after each swap, then after each transfer, in the order that settles ties."""
    loads, slot_on = gpu_loads(problem, slots), slots_of(slots, problem.gpus)
    heavy = sorted(range(problem.gpus), key=lambda g: (-loads[g], g))[: problem.top_k]
    light = sorted(range(problem.gpus), key=lambda g: (loads[g], g))[: problem.top_k]
    for r in [r for g in heavy for r in slot_on[g]]:
        for s in [s for g in light for s in slot_on[g]]:
            yield replaced(slots, {r: slots[s], s: slots[r]})
    for r in range(len(slots)):
        for f in sorted({slots[s] for g in heavy for s in slot_on[g]}):
            yield replaced(slots, {r: f})


def is_allowed(problem: Problem, before: Slots, after: Slots) -> bool:
    """Whether a step from one placement to another keeps all rules."""
    return (
        set(after) == set(before)
        and not has_new_double(problem, before, after)
        and reach(problem, after) <= reach(problem, problem.start)
        and max(gpu_loads(problem, after)) <= max(gpu_loads(problem, before))
        and (problem.max_moves is None or spent(problem, after) <= problem.max_moves)
    )


def score(problem: Problem, before: Slots, after: Slots) -> Fraction:
    """The gain of a step per net move; 0 if it is not worth its moves."""
    then, now = gpu_loads(problem, before), gpu_loads(problem, after)
    mean = Fraction(max(sum(then), problem.gpus), problem.gpus)
    gain = (squares(then) - squares(now)) / mean**2
    cost = spent(problem, after) - spent(problem, before)
    if gain <= 0 or gain < problem.min_gain * cost:
        return Fraction(0)
    return gain / max(cost, Fraction(1, 2**40))


def gpu_loads(problem: Problem, slots: Slots) -> list[int]:
    """Load of each GPU."""
    count = Counter(slots)
    return [
        sum(problem.weights[slots[r]] // count[slots[r]] for r in here)
        for here in slots_of(slots, problem.gpus)
    ]


def has_new_double(problem: Problem, before: Slots, after: Slots) -> bool:
    """Whether a GPU holds more replicas of an expert than before, and more than one."""
    had, has = (
        [Counter(slots[r] for r in here) for here in slots_of(slots, problem.gpus)]
        for slots in (before, after)
    )
    return any(
        number > max(1, old[expert])
        for old, new in zip(had, has, strict=True)
        for expert, number in new.items()
    )


def reach(problem: Problem, slots: Slots) -> set[tuple[int, int]]:
    """(router group, node) of all slots; empty without groups, when experts may lie anywhere."""
    if problem.groups == 1:
        return set()
    of_group = len(problem.weights) // problem.groups
    of_node = len(slots) // problem.nodes
    return {(expert // of_group, r // of_node) for r, expert in enumerate(slots)}


def spent(problem: Problem, slots: Slots) -> Fraction:
    """The cost of the net moves from the start to these slots."""
    near = held(problem.start, problem.nodes)
    return sum(
        (
            Fraction(1) if e in near[g * problem.nodes // problem.gpus] else problem.cross_node_cost
            for g, e in arrivals(problem.start, slots, problem.gpus)
        ),
        Fraction(0),
    )


def net_moves(start: Slots, slots: Slots, gpus: int) -> int:
    """Experts on a GPU that did not hold them at the start."""
    return len(arrivals(start, slots, gpus))


def arrivals(start: Slots, slots: Slots, gpus: int) -> list[tuple[int, int]]:
    """(GPU, expert) of each expert that a GPU holds and did not hold at the start."""
    old, new = held(start, gpus), held(slots, gpus)
    return [(g, expert) for g in range(gpus) for expert in new[g] - old[g]]


def held(slots: Slots, parts: int) -> list[set[int]]:
    """Experts of each GPU, or of each node."""
    return [{slots[r] for r in here} for here in slots_of(slots, parts)]


def slots_of(slots: Slots, parts: int) -> list[range]:
    """Numbers of each GPU's slots, or of each node's."""
    per = len(slots) // parts
    return [range(part * per, part * per + per) for part in range(parts)]


def replaced(slots: Slots, new: dict[int, int]) -> Slots:
    """A copy with other experts in some slots."""
    return [new.get(r, expert) for r, expert in enumerate(slots)]


def squares(loads: list[int]) -> int:
    """Sum of squares."""
    return sum(load * load for load in loads)
