"""Random schedules of a world, and the faults of one."""

from __future__ import annotations

import random
from collections import Counter

from tests.rollout.world import Shape, World
from trimtab_tools.history import Violation, check_history, read_history

# How often an action is picked where all others that can happen count 1; the rare ones
# end, or begin anew, what the others have built up.
_WEIGHTS = {
    "propose": 4.0,
    "expire": 0.2,
    "fail transfer": 0.2,
    "kill server": 0.1,
    "kill server later": 0.2,
    "lose stream": 0.15,
    "pause": 0.1,
    "drain": 0.05,
    "kill worker": 0.03,
    "form group": 0.02,
    "lose store": 0.03,
}
_FAULTS = _WEIGHTS.keys() - {"propose", "form group"}


def shape_of(rng: random.Random) -> Shape:
    """A random setup: one to eight workers, and all other parameters of a schedule."""
    workers = rng.choice([1, 2, 2, 3, 3, 4, 5, 8])
    return Shape(
        workers=workers,
        gpus_each=rng.randint(1 if workers > 1 else 2, 2),
        every=rng.randint(1, 3),
        collective=rng.random() < 0.5,
        reorder=rng.random() < 0.3,
    )


def play(seed: int) -> World:
    """A world at rest after the schedule of a seed."""
    rng = random.Random(seed)
    world = World(shape_of(rng), rng)
    calm = rng.random()
    weight_of = {
        name: weight * (calm if name in _FAULTS else 1) for name, weight in _WEIGHTS.items()
    }
    for _ in range(rng.randint(20, 100 * world.shape.workers)):
        actions = world.actions()
        weights = [weight_of.get(action[0], 1.0) for action in actions]
        world.act(rng.choices(actions, weights)[0])
    world.quiesce()
    return world


def verdict(world: World) -> list[str]:
    """The faults of a world at rest. Empty if all is well."""
    wrong = [*world.splits, *world.alarms, *world.complaints]
    if world.is_at_rest():
        world.switch_once_more()
    if not world.is_at_rest():
        wrong.append(f"not at rest: {world.rollout and world.rollout.blocked_reason()}")
    *earlier, last = world.lines()
    reports = [check_history(read_history(lines)) for lines in earlier]
    reports.append(check_history(read_history(last), complete=True))
    violations = (each for report in reports for each in report.violations)
    return [*wrong, *(str(each) for each in violations if not _is_due_to_loss(world, each))]


def _is_due_to_loss(world: World, violation: Violation) -> bool:
    """Whether a violation follows from a lost store: terms restart, groups are forgotten."""
    has_epoch_again = violation.invariant == "P2" and "but has had epoch" in violation.message
    return world.stores_lost > 0 and (violation.invariant == "P1" or has_epoch_again)


def play_many(seeds: range) -> tuple[Counter[str], dict[int, list[str]]]:
    """Play seeds. Returns how often each action happened, and the faults by seed."""
    totals: Counter[str] = Counter()
    wrong = {}
    for seed in seeds:
        world = play(seed)
        complaints = verdict(world)
        totals.update(world.counts, schedules=1)
        if complaints:
            wrong[seed] = complaints
    return totals, wrong
