"""How plan time grows with one dimension, the others fixed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple, get_args

import torch
from torch import Tensor

from tests.bench.loads import realistic
from tests.bench.options import Options
from tests.bench.planners import backends
from tests.bench.problems import Problem, shape_of
from tests.bench.tables import in_ms, interleaved, predicted_seconds, print_table
from trimtab_server.domain.topology import Topology
from trimtab_server.solver import Backend, Effort, Settings, evaluate, settings_for

PATIENCE_S, REFERENCE_PATIENCE_S = 20.0, 4.0
"""A plan is left out if, judging by an eighth of its layers, it would take longer."""

CAPTION = f"""Medians in ms of loads to maps on the host (plan, without checks and evaluation);
backends take turns. "-": not run, as it would take over {PATIENCE_S:.0f} s
({REFERENCE_PATIENCE_S:.0f} s for the reference), by the time that an eighth of the layers took.
Balancedness is the mean over layers; every backend answers the same."""

Work = tuple[Problem, dict[str, Settings]]
"""A problem, and the settings to solve it with by their names."""


def run(options: Options) -> None:
    """Print a table for each dimension."""
    measured = backends(options)
    caption = CAPTION
    for dimension, works in _dimensions(TINY if options.quick else USUAL).items():
        names = list(works[0][1])
        columns = ["shape", *(f"balancedness, {name}" for name in names)]
        columns += [f"{backend.name}, {name}" for name in names for backend in measured]
        rows = (_row(problem, ways, measured, options.repeats) for problem, ways in works)
        print_table(f"Growth with the number of {dimension}", columns, rows, caption)
        caption = ""  # once is enough


class Range(NamedTuple):
    """The values of each dimension, and its fixed value while others grow."""

    layers: Sequence[int]
    experts: Sequence[int]
    gpus: Sequence[int]
    restarts: Sequence[int]
    usual: tuple[int, int, int]


USUAL = Range(
    (1, 4, 16, 58, 128, 256, 512, 1024),
    (64, 128, 256, 512, 1024),
    (8, 16, 32, 64, 128, 256, 512),
    (1, 4, 16, 64),
    (58, 256, 32),
)
TINY = Range((1, 2), (8, 16), (4, 8), (1, 2), (2, 16, 4))


def _dimensions(grown: Range) -> dict[str, list[Work]]:
    efforts: dict[str, Settings] = {effort: settings_for(effort) for effort in get_args(Effort)}
    layers, experts, gpus = grown.usual
    # One further slot on each GPU; for GPUs, as many slots as the largest number of GPUs needs.
    slots, most = experts + gpus, max(experts, 2 * grown.gpus[-1])
    return {
        "layers": [(_problem(L, experts, slots, gpus), efforts) for L in grown.layers],
        "experts": [(_problem(layers, E, E + gpus, gpus), efforts) for E in grown.experts],
        "GPUs": [(_problem(layers, experts, most, G), efforts) for G in grown.gpus],
        "restarts": [
            (
                _problem(layers, experts, slots, gpus, f", {n} restarts"),
                {"K = 16, to convergence": Settings(16, None, n)},
            )
            for n in grown.restarts
        ],
    }


def _problem(layers: int, experts: int, slots: int, gpus: int, also: str = "") -> Problem:
    load, topology = realistic(layers, experts), Topology(slots, gpus)
    return Problem(shape_of(load, topology) + also, load, topology)


def _row(
    problem: Problem, ways: dict[str, Settings], measured: list[Backend], repeats: int
) -> list[str]:
    load_LE, topology = torch.from_numpy(problem.load), problem.topology
    shares, times = [], []
    for settings in ways.values():
        quick = [each for each in measured if _is_quick(each, load_LE, topology, settings)]
        calls = [partial(each.plan, load_LE, topology, settings) for each in quick]
        taken = dict(zip((each.name for each in quick), interleaved(calls, repeats), strict=True))
        times += [in_ms(taken[each.name]) if each in quick else "-" for each in measured]
        shares.append(_balancedness(calls[-1]().phy2log_LR, problem) if calls else "-")
    return [problem.name, *shares, *times]


def _is_quick(backend: Backend, load_LE: Tensor, topology: Topology, settings: Settings) -> bool:
    seconds = predicted_seconds(lambda part_LE: backend.plan(part_LE, topology, settings), load_LE)
    return seconds <= (REFERENCE_PATIENCE_S if backend.name == "reference" else PATIENCE_S)


def _balancedness(phy2log_LR: Tensor, problem: Problem) -> str:
    after = evaluate(phy2log_LR, problem.load, problem.topology.num_gpus, backend="reference")
    return f"{after.balancedness.mean():.4f}"
