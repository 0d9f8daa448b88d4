"""All planners side by side: balance, time and memory on every shape."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median

import torch
from torch import Tensor

from tests.bench.judge import Quality, judge
from tests.bench.memory import peak_memory
from tests.bench.options import LimitError, Options
from tests.bench.planners import Planner, describe, planners
from tests.bench.problems import Problem, problems
from tests.bench.tables import in_ms, once, predicted_seconds, print_table

PATIENCE_S = 30.0
"""A planner is left out if, judging by an eighth of the layers, it would take longer."""
ONCE_MS = 2000.0
"""A call that takes longer is timed once."""
QUICK_MS, MORE = 100.0, 5
"""Calls that take less are repeated this many times as often, since they are noisy and cheap."""
NOISY = 1.5
LEFT_OUT = "-"

CAPTION = f"""Balancedness: mean GPU load / heaviest GPU load, the mean and the worst of all layers.
Gap: mean over layers of 1 - bound / imbalance, where no placement of that topology has an
imbalance below the bound; shown for placements that keep groups on their nodes, as the bound
assumes.
Plan: loads on the host to maps on the host, nothing else; place: the same with checks and
evaluation. Both are medians of calls that take turns with those of all other planners of the shape,
after one to warm up. Planners under {QUICK_MS:.0f} ms take {MORE} times as many turns. *: over
{ONCE_MS / 1e3:.0f} s, and so one plan alone. ~: noisy, half of the calls took over {NOISY} times
the shortest. "Times reference": plan time of our reference with the same effort (fast, for planners
without one) over this one's. A planner with "-" throughout was left out, since by an eighth of the
layers it would take over {PATIENCE_S:.0f} s."""


@dataclass
class Entry:
    """The results of a planner on one problem.

    Attributes:
        planner: the planner.
        failure: why there are no figures; empty if there are.
        phy2log_LR: its answer.
        quality: of that answer.
        plan_ms: milliseconds of each repeat; so is `place_ms`.
        first_ms: milliseconds of the first call after compiling.
    """

    planner: Planner
    failure: str = ""
    phy2log_LR: Tensor | None = None
    quality: Quality | None = None
    plan_ms: list[float] = field(default_factory=list)
    place_ms: list[float] = field(default_factory=list)
    first_ms: float = 0.0


Step = Callable[[Entry, Problem, Tensor], None]


def run(options: Options) -> None:
    """Print the table."""
    chosen = list(planners(options))
    columns = ["shape", "planner", "mean", "worst", "gap", "plan ms", "place ms", "times reference"]
    columns += ["peak MiB"] if options.memory else []
    wrong: list[str] = []
    rows = (
        row
        for problem in problems(quick=options.quick)
        for row in _rows(problem, chosen, options, wrong)
    )
    print_table("Backends, yardsticks and peers", columns, rows, CAPTION)
    if options.memory:
        print(f"\n{peak_memory.__doc__}")
    if wrong:
        raise LimitError(f"ours failed, or differ from the reference: {'; '.join(wrong)}")


def measure(problem: Problem, chosen: Sequence[Planner], repeats: int) -> list[Entry]:
    """Run all planners on one problem, taking turns."""
    load_LE = torch.from_numpy(problem.load)
    entries = [Entry(planner) for planner in chosen]
    for entry in entries:
        _guarded(_first, entry, problem, load_LE)
    for turn in range(MORE * repeats):
        for entry in entries:
            if entry.first_ms <= (ONCE_MS if turn < repeats else QUICK_MS):
                _guarded(_again, entry, problem, load_LE)
    return entries


def _first(entry: Entry, problem: Problem, load_LE: Tensor) -> None:
    """Warm up, and give up on planners that would take too long."""
    planner, topology = entry.planner, problem.topology
    foretold = predicted_seconds(lambda part_LE: planner.plan(part_LE, topology), load_LE)
    if foretold > PATIENCE_S:
        entry.failure = LEFT_OUT
        return
    answers: list[Tensor] = []
    for _ in range(2):
        entry.first_ms = once(lambda: answers.append(planner.plan(load_LE, topology)))
        if entry.first_ms <= ONCE_MS or foretold * 1e3 > ONCE_MS:
            break  # otherwise the call may have included compiling for this shape
    entry.phy2log_LR = answers[0]
    entry.quality = judge(answers[0], problem)
    if entry.first_ms > ONCE_MS:
        entry.plan_ms.append(entry.first_ms)
    elif planner.place is not None:
        planner.place(load_LE, topology)


def _again(entry: Entry, problem: Problem, load_LE: Tensor) -> None:
    planner, topology = entry.planner, problem.topology
    entry.plan_ms.append(once(lambda: planner.plan(load_LE, topology)))
    if (place := planner.place) is not None:
        entry.place_ms.append(once(lambda: place(load_LE, topology)))


def _guarded(step: Step, entry: Entry, problem: Problem, load_LE: Tensor) -> None:
    if entry.failure:
        return
    try:
        step(entry, problem, load_LE)
    except Exception as error:  # noqa: BLE001 - a peer may raise anything, and the run continues
        entry.failure = describe(error)


def _rows(
    problem: Problem, chosen: Sequence[Planner], options: Options, wrong: list[str]
) -> Iterator[list[str]]:
    """The rows of a problem; errors of our own planners are added to `wrong`."""
    entries = measure(problem, chosen, options.repeats)
    reference = {
        entry.planner.effort: entry
        for entry in entries
        if entry.planner.key.startswith("backend:reference:")
    }
    for entry in entries:
        name, model = entry.planner.name, reference.get(entry.planner.effort)
        differs = entry.planner.is_ours and _differ(entry, model)
        if entry.planner.is_ours and (differs or entry.failure not in ("", LEFT_OUT)):
            wrong.append(f"{name} on {problem.name}")
        if differs:
            name += " (DIFFERS FROM THE REFERENCE)"
        if entry.quality is not None and not entry.quality.keeps_groups:
            name += " (splits groups)"
        row = [problem.name, name, *_figures(entry, model)]
        if options.memory:
            row.append("-" if entry.failure else peak_memory(entry.planner, problem, options))
        yield row


def _differ(entry: Entry, model: Entry | None) -> bool:
    if model is None or model.phy2log_LR is None or entry.phy2log_LR is None:
        return False
    return not torch.equal(entry.phy2log_LR, model.phy2log_LR)


def _figures(entry: Entry, model: Entry | None) -> list[str]:
    if entry.failure or entry.quality is None:
        return [entry.failure or LEFT_OUT, *["-"] * 5]
    star = "*" if entry.first_ms > ONCE_MS else ""
    plan_ms = median(entry.plan_ms)
    place_ms = _in_ms(entry.place_ms) if entry.place_ms else "-"
    times = f"{median(model.plan_ms) / plan_ms:.1f}" if model and model.plan_ms else "-"
    return [*entry.quality.cells(), _in_ms(entry.plan_ms) + star, place_ms, times]


def _in_ms(times: list[float]) -> str:
    middle = median(times)
    return in_ms(middle) + ("~" if middle > NOISY * min(times) else "")
