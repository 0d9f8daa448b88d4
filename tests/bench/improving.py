"""Times improve, and shows how far it gets when few GPUs share most experts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from tests.bench.loads import drifted, lognormal
from tests.bench.options import Options
from tests.bench.planners import backends
from tests.bench.problems import shape_of
from tests.bench.tables import in_ms, interleaved, print_table
from trimtab_server.domain.topology import Topology
from trimtab_server.solver import Backend, Budget, evaluate, improve, place
from trimtab_server.solver.improve import DEFAULT_TOP_K

MOVES = 4
SHAPES = (
    (24, 32, Topology(40, 8)),
    (58, 256, Topology(288, 32)),
    (58, 256, Topology(288, 72)),
    (61, 256, Topology(1024, 512)),
)
TINY = ((3, 16, Topology(20, 4)),)

CAPTION = f"""From a placement planned for a realistic load, of which 30 % was then replaced, by at
most {MOVES} moves a layer. Backend: `Backend.improve` alone, loads and placement on the host to a
placement on the host; improve() checks its input and lists the moves; place() evaluates too.
Medians; backends and calls take turns."""

FEW_GPUS = (
    (5, Topology(8, 2)),
    (8, Topology(12, 2)),
    (6, Topology(12, 3)),
    (12, Topology(18, 3)),
    (8, Topology(16, 4)),
    (16, Topology(24, 4)),
)
CASES = 350
FEW_MOVES = (1, 2, 4)

FEW_GPUS_CAPTION = """Layers with 1.5 to 2 slots for each expert, so that a
step changes several GPUs. From a placement planned for a lognormal load to another, independent
one. Mean imbalance over layers; bound: the mean of the lower bounds on any placement."""


class Work(NamedTuple):
    """The inputs of improve."""

    load_LE: Tensor
    start_LR: Tensor
    topology: Topology


def run(options: Options) -> None:
    """Print the table."""
    measured = backends(options)
    columns = ["shape", "backend", "Backend.improve ms", "improve() ms", "place() ms"]
    columns += ["balancedness before", "after", "moves a layer", "times reference"]
    shapes = TINY if options.quick else SHAPES
    if not measured:
        return
    rows = (row for shape in shapes for row in _rows(*shape, measured, options.repeats))
    print_table(f"Improve, <= {MOVES} moves a layer", columns, rows, CAPTION)


def few_gpus(options: Options) -> None:
    """Print how far improve gets, by budget, when few GPUs share most experts."""
    columns = ["shape", "before", *(f"<= {moves} moves" for moves in FEW_MOVES), "no limit"]
    columns += ["full plan", "bound"]
    rows = (_reached(*shape, options) for shape in FEW_GPUS)
    print_table("Improve on few GPUs: imbalance", columns, rows, FEW_GPUS_CAPTION)


def _reached(experts: int, topology: Topology, options: Options) -> list[str]:
    layers, backend = 3 if options.quick else CASES, options.backend
    before, now = (lognormal(layers, experts, seed=seed) for seed in (0, 1))
    start_LR = place(before, topology, effort="fast", backend=backend).phy2log
    budgets = [Budget(moves) for moves in (0, *FEW_MOVES, None)]
    plans = [
        *(place(now, topology, current=start_LR, budget=each, backend=backend) for each in budgets),
        place(now, topology, backend=backend),
    ]
    figures = [*(plan.after.imbalance for plan in plans), plans[-1].after.bound]
    return [shape_of(now, topology), *(f"{float(figure.mean()):.4f}" for figure in figures)]


def _rows(
    layers: int, experts: int, topology: Topology, measured: list[Backend], repeats: int
) -> Iterator[list[str]]:
    before, after = map(torch.from_numpy, drifted(layers, experts))
    # All backends give the same answer; the last one is the fastest.
    start_LR = place(before, topology, effort="fast", backend=measured[-1]).phy2log
    work = Work(after, start_LR, topology)
    ways = [calls(backend, work) for backend in measured]
    taken = iter(interleaved([call for way in ways for call in way], repeats))
    medians = [[next(taken) for _ in way] for way in ways]
    reference = next(
        (row[0] for row, each in zip(medians, measured, strict=True) if each.name == "reference"),
        None,
    )
    for backend, figures in zip(measured, medians, strict=True):
        ratio = f"{reference / figures[0]:.1f}" if reference else "-"
        cells = map(in_ms, figures)
        yield [
            shape_of(after.numpy(), topology),
            backend.name,
            *cells,
            *_outcome(backend, work),
            ratio,
        ]


def calls(backend: Backend, work: Work) -> list[Callable[[], object]]:
    """`Backend.improve`, the whole `improve`, and the whole `place`."""
    budget, topology = Budget(max_moves_per_layer=MOVES), work.topology
    return [
        lambda: backend.improve(work.start_LR, work.load_LE, topology, budget, DEFAULT_TOP_K),
        lambda: improve(
            work.start_LR,
            work.load_LE,
            topology.num_gpus,
            max_moves_per_layer=MOVES,
            backend=backend,
        ),
        lambda: _placed(backend, work),
    ]


def _placed(backend: Backend, work: Work) -> Tensor:
    budget = Budget(max_moves_per_layer=MOVES)
    return place(
        work.load_LE, work.topology, current=work.start_LR, budget=budget, backend=backend
    ).phy2log


def _outcome(backend: Backend, work: Work) -> list[str]:
    new_LR, gpus = _placed(backend, work), work.topology.num_gpus
    before = evaluate(work.start_LR, work.load_LE, gpus, backend=backend)
    after = evaluate(new_LR, work.load_LE, gpus, current=work.start_LR, backend=backend)
    return [
        f"{before.balancedness.mean():.4f}",
        f"{after.balancedness.mean():.4f}",
        f"{after.moves.double().mean():.2f}",
    ]
