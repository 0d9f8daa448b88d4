"""Servers to measure, each in its own process."""

from __future__ import annotations

from typing import NamedTuple

import torch

from tests.bench.loads import Loads, drifted
from tests.bench.options import Options
from tests.bench.planners import open_backend
from trimtab_client import Topology
from trimtab_server.solver import BackendName


class Served(NamedTuple):
    """A server: the name of its backend, and its flags."""

    name: str
    flags: tuple[str, ...]


class Job(NamedTuple):
    """A problem for callers: a load, the load before it, and the topology."""

    name: str
    before: Loads
    load: Loads
    topology: Topology


def servers(options: Options) -> list[Served]:
    """One server for each requested backend; else those that "auto" is on the CPU and on a GPU."""
    names: list[BackendName] = list(options.backends)
    if not names:
        names = ["auto", "cuda"] if torch.cuda.is_available() else ["auto"]
    opened = [open_backend(name) for name in names]
    return [_served(backend.name) for backend in opened if backend is not None]


def jobs(*, quick: bool) -> list[Job]:
    """A small and a large model."""
    if quick:
        return [Job("3 x 16 -> 20 / 4", *drifted(3, 16), Topology(20, 4))]
    return [
        Job("24 x 32 -> 40 / 8", *drifted(24, 32), Topology(40, 8)),
        Job("58 x 256 -> 288 / 32", *drifted(58, 256), Topology(288, 32)),
    ]


def _served(backend: str) -> Served:
    device = "cuda" if backend == "cuda" else "cpu"
    return Served(backend, ("--device", device, "--backend", backend))
