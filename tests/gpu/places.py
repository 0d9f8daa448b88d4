"""`place` on the CPU and on the device: the same answers, and how long they take."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tests.bench.loads import realistic, trace
from tests.bench.tables import interleaved
from tests.gpu.compiling import not_passed_on
from tests.gpu.report import Report
from tests.gpu.surroundings import DEVICE, REHEARSAL
from trimtab_server.domain.topology import Topology
from trimtab_server.solver import Budget, Settings, place, settings_for
from trimtab_server.solver.backends.cuda.backend import Cuda

_REAL = {
    "realistic 58 x 256, 288 / 32": (realistic(), Topology(288, 32)),
    "realistic 58 x 256, 288 / 72": (realistic(), Topology(288, 72)),
    "hierarchical 288 / 32, 8 groups, 4 nodes": (realistic(), Topology(288, 32, 4, 8)),
    "gptoss20b 40 / 8": (trace("gptoss20b_phases")[0], Topology(40, 8)),
    "odd 7 x 13, 21 / 7": (realistic(7, 13, 1, seed=1, tokens=50), Topology(21, 7)),
}
_TINY = {"tiny 1 x 8, 12 / 4": (realistic(1, 8, 1), Topology(12, 4))}


def run(report: Report, _beside: str | None) -> bool:
    """Whether all answers are equal."""
    rows = []
    columns = ["what", "equal", "on the CPU ms", "on the device ms"]
    title = "`place`: checks, plan, moves and evaluation"
    report.table(title, columns, (rows.append(row) or row for row in _rows()))
    return all(row[1] == "yes" for row in rows)


def _rows() -> Iterator[list[object]]:
    cuda = Cuda(DEVICE, not_passed_on)
    settings = Settings(2, 2, 1) if REHEARSAL else Settings(8, None, 2)
    for name, (load, topology) in (_TINY if REHEARSAL else _REAL).items():
        load_LE = torch.from_numpy(load)
        there_LE, later_LE = load_LE.to(DEVICE), load_LE.roll(1, 1)
        current = place(load_LE, topology, settings=settings_for("fast"), backend="cpu").phy2log
        budget = Budget(max_moves_per_layer=4)
        kinds = {
            "full plan": ((load_LE, there_LE), {"settings": settings}),
            "improve": (
                (later_LE, later_LE.to(DEVICE)),
                {"current": current, "budget": budget},
            ),
        }
        for kind, (sources, options) in kinds.items():
            calls = [
                partial(_placed, source, topology, backend=backend, **options)
                for source, backend in zip(sources, ("cpu", cuda), strict=True)
            ]
            equal = torch.equal(*(call() for call in calls))
            times = interleaved(calls, 1 if REHEARSAL else 5)
            yield [f"{name}, {kind}", "yes" if equal else "NO", *times]


def _placed(load_LE: Tensor, topology: Topology, **options: Any) -> Tensor:
    """The placement, on the host: so that the device has finished."""
    return place(load_LE, topology, **options).phy2log.cpu()
