"""Balance and time of each stage and effort, side by side."""

from __future__ import annotations

import torch

from tests.bench.loads import Loads, realistic, windows
from tests.bench.options import Options
from tests.bench.problems import TRACES
from tests.bench.tables import print_table, timed
from trimtab_server.domain.topology import Topology
from trimtab_server.solver import BackendName, Plan, Settings, place, settings_for

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


def run(options: Options) -> None:
    """Print all tables."""
    for name, topology in SHAPES.items():
        _table(f"Realistic 58 x 256, slots / GPUs {name}", realistic(), topology, options)
    for name, topology in TRACES.items():
        slots = f"{topology.num_replicas} / {topology.num_gpus}"
        _table(f"Real trace {name}, {slots}", windows(name), topology, options)


def noise(options: Options) -> None:
    """Balance for each amplitude of the restarts' noise."""
    # Patched below; only the reference reads it.
    backend: BackendName = "reference"
    del options
    from trimtab_server.solver.backends.reference import noise as module

    settings = {"K 4 x 16": Settings(4, None, 16), "K 16 x 4": Settings(16, None, 4)}
    cases = [(shape, how) for shape in ("288 / 32", "288 / 72") for how in settings]
    chosen, rows = module.AMPLITUDE, []
    for amplitude in (51, 205, 410, 614, 819, 1638):
        module.AMPLITUDE = amplitude
        shares = [_balance(SHAPES[shape], settings[how], backend) for shape, how in cases]
        rows.append([f"{amplitude / module.UNIT:.0%}", *shares])
    module.AMPLITUDE = chosen
    columns = ["amplitude", *(f"{shape}, {how}" for shape, how in cases)]
    print_table("Noise of the restarts: mean (worst) balancedness", columns, rows)


def presets(options: Options) -> None:
    """Balance and time for each choice of top_k and restarts, to convergence."""
    rows = []
    for top_k in (4, 8, 16):
        for restarts in (1, 4, 8):
            settings = Settings(top_k, None, restarts)
            cells = [
                _measured(SHAPES[shape], settings, options) for shape in ("288 / 32", "288 / 72")
            ]
            rows.append([top_k, restarts, *cells])
    columns = ["K", "restarts", "288 / 32", "288 / 72"]
    print_table("Presets, to convergence: mean (worst) balancedness, ms", columns, rows)


def _table(title: str, load: Loads, topology: Topology, options: Options) -> None:
    tensor = torch.from_numpy(load)
    rows = []
    for method, settings in METHODS.items():

        def solve(settings: Settings = settings) -> Plan:
            return place(tensor, topology, settings=settings, backend=options.backend)

        share = solve().after.balancedness
        took = timed(solve, options.repeats)
        rows.append([method, f"{share.mean():.4f}", f"{share.min():.4f}", f"{took:.1f}"])
    print_table(title, ["method", "mean balancedness", "worst layer", "ms"], rows)


def _balance(topology: Topology, settings: Settings, backend: BackendName) -> str:
    load_LE = torch.from_numpy(realistic())
    share = place(load_LE, topology, settings=settings, backend=backend).after.balancedness
    return f"{share.mean():.5f} ({share.min():.4f})"


def _measured(topology: Topology, settings: Settings, options: Options) -> str:
    load_LE, backend = torch.from_numpy(realistic()), options.backend
    took = timed(lambda: place(load_LE, topology, settings=settings, backend=backend), 1)
    return f"{_balance(topology, settings, backend)} {took:.0f}"
