"""All planners that can be timed from loads to placements: backends, yardsticks, peers.

A planner is opened by its key, a string, so that a new process can open the same planner:
"backend:cpu:fast", "yardstick:greedy", "peer:path/to/eplb.py".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import cast, get_args

import torch
from torch import Tensor

from tests.bench.options import Options
from tests.bench.peers import load_peer
from trimtab_server.domain.errors import InvalidArgumentError
from trimtab_server.domain.topology import Topology
from trimtab_server.solver import Backend, BackendName, Effort, backend_for, place, settings_for

EFFORTS: tuple[Effort, ...] = get_args(Effort)
GREEDY = "yardstick:greedy"

Plan = Callable[[Tensor, Topology], Tensor]
"""(load [L, E] float64 on the CPU, topology) -> phy2log [L, R]."""


@dataclass(frozen=True)
class Planner:
    """One row of each table.

    Attributes:
        key: for opening it again; see `open_planner`.
        name: in tables.
        effort: of the reference that it is compared with.
        plan: computes placements from loads, and does nothing else.
        place: the same with checks and evaluation; only our backends have it.
    """

    key: str
    name: str
    effort: Effort
    plan: Plan
    place: Plan | None = None

    @property
    def is_ours(self) -> bool:
        """Whether it is a backend."""
        return self.key.startswith("backend:")


def planners(options: Options) -> Iterator[Planner]:
    """All planners that can run here; prints which ones cannot, and why."""
    for name in backend_names(options):
        backend = open_backend(name)
        if backend is not None:
            yield from (_of_backend(backend, effort) for effort in EFFORTS)
    for key in (GREEDY, *(f"peer:{path}" for path in options.peers)):
        try:
            yield open_planner(key)
        except Exception as error:  # noqa: BLE001 - a file of someone else's may raise anything
            print(f"\nNot measured: {key}: {describe(error)}", flush=True)


def open_planner(key: str) -> Planner:
    """The planner of a key; raises any error that prevents it from running here."""
    kind, _, rest = key.partition(":")
    if kind == "peer":
        return Planner(key, f"peer {rest}", "fast", load_peer(rest))
    if kind == "yardstick":
        # Imported here, since Numba is heavy and may not be installed.
        from tests.bench.yardsticks import plan_greedily

        return Planner(key, "yardstick: compiled greedy, no groups", "fast", plan_greedily)
    name, _, effort = rest.partition(":")
    backend = backend_for(cast(BackendName, name), torch.device("cpu"), _say_fallback)
    return _of_backend(backend, cast(Effort, effort))


def backend_names(options: Options) -> list[BackendName]:
    """The requested backends, or all; the reference first, since others are compared with it."""
    return list(options.backends) or [name for name in get_args(BackendName) if name != "auto"]


def open_backend(name: BackendName) -> Backend | None:
    """The backend; None, with a printed line, if it cannot run."""
    try:
        return backend_for(name, torch.device("cpu"), _say_fallback)
    except InvalidArgumentError as error:
        print(f"\nNot measured: {error}", flush=True)
        return None


def backends(options: Options) -> list[Backend]:
    """All requested backends that can run here."""
    opened = (open_backend(name) for name in backend_names(options))
    return [backend for backend in opened if backend is not None]


def describe(error: BaseException) -> str:
    """The kind and the message of an error, short enough for a cell of a table."""
    text = " ".join(str(error).split())[:100].replace("|", "/")
    return f"{type(error).__name__}: {text}"


def _of_backend(backend: Backend, effort: Effort) -> Planner:
    return Planner(
        f"backend:{backend.name}:{effort}",
        f"{backend.name}, {effort}",
        effort,
        partial(_plan, backend, effort),
        partial(_place, backend, effort),
    )


def _plan(backend: Backend, effort: Effort, load_LE: Tensor, topology: Topology) -> Tensor:
    return backend.plan(load_LE, topology, settings_for(effort)).phy2log_LR


def _place(backend: Backend, effort: Effort, load_LE: Tensor, topology: Topology) -> Tensor:
    return place(load_LE, topology, effort=effort, backend=backend).phy2log


def _say_fallback(backend: str, reason: str, detail: str) -> None:
    # Otherwise a table would show one backend's figures under the name of another.
    print(f"\nWarning: another backend did work of {backend} ({reason}): {detail}", flush=True)
