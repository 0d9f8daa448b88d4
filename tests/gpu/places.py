"""Compares `place` on the CPU and on the device: answers and times."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tests.bench.loads import realistic, trace
from tests.bench.tables import interleaved
from tests.gpu.report import Report
from tests.gpu.surroundings import DEVICE, REHEARSAL, not_passed_on
from trimtab_server.domain.topology import Topology
from trimtab_server.solver import BackendName, Budget, Settings, place, settings_for
from trimtab_server.solver.backends.backend import Backend
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


def placements(
    device: torch.device, backend: BackendName | Backend
) -> Iterator[tuple[str, Callable[[], Tensor]]]:
    """Calls of `place` by name: full plans, and improvements of them, for loads on `device`."""
    settings = Settings(2, 2, 1) if REHEARSAL else Settings(8, None, 2)
    for name, (load, topology) in (_TINY if REHEARSAL else _REAL).items():
        load_LE = torch.from_numpy(load)
        current = place(load_LE, topology, settings=settings_for("fast"), backend="cpu").phy2log
        there_LE, later_LE = load_LE.to(device), load_LE.roll(1, 1).to(device)
        place_here = partial(_placed, topology=topology, backend=backend)
        budget = Budget(max_moves_per_layer=4)
        yield f"{name}, full plan", partial(place_here, there_LE, settings=settings)
        yield f"{name}, improve", partial(place_here, later_LE, current=current, budget=budget)


def _rows() -> Iterator[list[object]]:
    on_host = placements(torch.device("cpu"), "cpu")
    on_device = placements(DEVICE, Cuda(DEVICE, not_passed_on))
    for (name, host), (_, device) in zip(on_host, on_device, strict=True):
        equal = torch.equal(host(), device())
        times = interleaved([host, device], 1 if REHEARSAL else 5)
        yield [name, "yes" if equal else "NO", *times]


def _placed(load_LE: Tensor, **options: Any) -> Tensor:
    """The placement on the host, so that the device has finished."""
    return place(load_LE, **options).phy2log.cpu()
