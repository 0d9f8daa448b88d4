"""Balance and time of each stage and effort, side by side."""

from __future__ import annotations

import numpy as np
import torch

from tests.bench.loads import Loads, realistic, trace
from tests.bench.tables import print_table, timed
from trimtab_server.domain.topology import Topology
from trimtab_server.solver import Settings, place, settings_for

METHODS = {
    "LPT only": Settings(max_iterations=0),
    "range, 20": Settings(objective="range"),
    "L2 top-4, 20": Settings(),
    "L2 top-4, converged": Settings(max_iterations=None),
    "effort fast": settings_for("fast"),
    "effort balanced": settings_for("balanced"),
}
SHAPES = {
    "288 / 32": Topology(288, 32),
    "320 / 64": Topology(320, 64),
    "288 / 72": Topology(288, 72),
    "288 / 32, 8 groups on 4 nodes": Topology(288, 32, 4, 8),
}


def run(repeats: int) -> None:
    """Print all tables."""
    for name, topology in SHAPES.items():
        _table(f"Realistic 58 x 256, slots / GPUs {name}", realistic(), topology, repeats)
    for name, topology in {
        "gptoss20b_phases": Topology(40, 8),
        "gptoss20b_mixed": Topology(40, 8),
        "esft_dsv2lite": Topology(80, 8),
        "olmoe_domains": Topology(80, 8),
        "mixtral8x7b_domains": Topology(12, 4),
    }.items():
        slots = f"{topology.num_replicas} / {topology.num_gpus}"
        _table(f"Real trace {name}, {slots}", _windows(name), topology, repeats)


def noise(repeats: int) -> None:
    """Balance for each amplitude of the restarts' noise."""
    del repeats
    from trimtab_server.solver.backends.reference import noise as module

    settings = {"K 4 x 16": Settings(4, None, 16), "K 16 x 4": Settings(16, None, 4)}
    cases = [(shape, how) for shape in ("288 / 32", "288 / 72") for how in settings]
    chosen, rows = module.AMPLITUDE, []
    for amplitude in (51, 205, 410, 614, 819, 1638):
        module.AMPLITUDE = amplitude
        shares = [_balance(realistic(), SHAPES[shape], settings[how]) for shape, how in cases]
        rows.append([f"{amplitude / module.UNIT:.0%}", *shares])
    module.AMPLITUDE = chosen
    columns = ["amplitude", *(f"{shape}, {how}" for shape, how in cases)]
    print_table("Noise of the restarts: mean (worst) balancedness", columns, rows)


def presets(repeats: int) -> None:
    """Balance and time for each choice of top_k and restarts, to convergence."""
    del repeats
    rows = []
    for top_k in (4, 8, 16):
        for restarts in (1, 4, 8):
            settings = Settings(top_k, None, restarts)
            cells = [_measured(SHAPES[shape], settings) for shape in ("288 / 32", "288 / 72")]
            rows.append([top_k, restarts, *cells])
    columns = ["K", "restarts", "288 / 32", "288 / 72"]
    print_table("Presets, to convergence: mean (worst) balancedness, ms", columns, rows)


def _table(title: str, load: Loads, topology: Topology, repeats: int) -> None:
    tensor = torch.from_numpy(load)
    rows = []
    for method, settings in METHODS.items():
        plan = place(tensor, topology, settings=settings)
        took = timed(lambda s=settings: place(tensor, topology, settings=s), repeats)
        share = plan.after.balancedness
        rows.append([method, f"{share.mean():.4f}", f"{share.min():.4f}", f"{took:.1f}"])
    print_table(title, ["method", "mean balancedness", "worst layer", "ms"], rows)


def _balance(load: Loads, topology: Topology, settings: Settings) -> str:
    share = place(torch.from_numpy(load), topology, settings=settings).after.balancedness
    return f"{share.mean():.5f} ({share.min():.4f})"


def _measured(topology: Topology, settings: Settings) -> str:
    load = realistic()
    took = timed(lambda: place(torch.from_numpy(load), topology, settings=settings), 1)
    return f"{_balance(load, topology, settings)} {took:.0f}"


def _windows(name: str) -> Loads:
    """Every eighth window of a trace, all layers, as one batch of rows."""
    load_TLE = trace(name)
    return np.concatenate(list(load_TLE[:: 8 if len(load_TLE) > 8 else 1]))
