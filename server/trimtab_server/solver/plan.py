"""Load to placement: plan anew, plan anew and align, or improve by few moves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from trimtab_server.domain.arrays import as_amounts, check_phy2log
from trimtab_server.domain.balance import Evaluation
from trimtab_server.domain.errors import require
from trimtab_server.domain.moves import Moves
from trimtab_server.domain.topology import Topology
from trimtab_server.solver.align import align
from trimtab_server.solver.backends.backend import Backend, Solved
from trimtab_server.solver.backends.select import BackendName, backend_for
from trimtab_server.solver.budget import Budget
from trimtab_server.solver.improve import DEFAULT_TOP_K
from trimtab_server.solver.settings import (
    DEFAULT_EFFORT,
    Effort,
    Settings,
    settings_for,
)
from trimtab_server.solver.stages import Stage, untimed


@dataclass(frozen=True)
class Plan:
    """A placement with what it took.

    Attributes:
        phy2log: int64 [L, R].
        moves: from the current placement; None without one.
        before: balance of the current placement; None without one.
        after: balance of the new placement.
        iterations: refinement or improvement steps tried, over all rows and restarts.
        swaps: swaps applied, likewise.
    """

    phy2log: Tensor
    moves: Moves | None
    before: Evaluation | None
    after: Evaluation
    iterations: int
    swaps: int


def place(
    load: Any,
    topology: Topology,
    *,
    current: Any = None,
    budget: Budget | None = None,
    effort: Effort = DEFAULT_EFFORT,
    seed: int = 0,
    settings: Settings | None = None,
    backend: BackendName | Backend = "auto",
    stage: Stage = untimed,
) -> Plan:
    """Place the experts of all layers, on the device of `load`.

    Without `current` the placement is planned from scratch; with it, planned
    and then aligned so that few experts move; with `budget` too, `current` is
    improved by the best few moves.

    Args:
        load: [L, E] of any real dtype, finite, >= 0.
        topology: where the experts may lie.
        current: int [L, R], the placement in force.
        budget: needs `current`.
        effort: "fast" or "balanced".
        seed: of the restarts.
        settings: of the packings; in place of `effort` and `seed`.
        backend: see `backend_for`.
        stage: entered around each stage, for a caller that has a clock.

    Raises:
        InvalidArgumentError: an argument breaks a rule above.
    """
    settings = settings or settings_for(effort, seed=seed)
    load_LE = as_amounts(load, "load")
    topology.check_experts(load_LE.shape[1])
    require(budget is None or current is not None, "budget", "is given without current")
    chosen = backend_for(backend, load_LE.device)
    if current is None:
        with stage("plan"):
            full = chosen.plan(load_LE, topology, settings)
        return _planned(full, load_LE, topology, None, chosen, stage)
    current_LR = check_phy2log(current, "current", load_LE.shape[1], topology.num_replicas)
    current_LR = current_LR.to(load_LE.device)
    require(
        len(current_LR) == len(load_LE),
        "current",
        f"has {len(current_LR)} layers where load has {len(load_LE)}",
    )
    if budget is not None:
        with stage("improve"):
            improved = chosen.improve(current_LR, load_LE, topology, budget, DEFAULT_TOP_K)
        return _planned(improved, load_LE, topology, current_LR, chosen, stage)
    with stage("plan"):
        full = chosen.plan(load_LE, topology, settings)
    with stage("align"):
        aligned_LR = align(
            full.phy2log_LR, current_LR, topology.num_gpus, num_nodes=topology.num_parts
        )
    aligned = full._replace(phy2log_LR=aligned_LR)
    return _planned(aligned, load_LE, topology, current_LR, chosen, stage)


def _planned(
    solved: Solved,
    load_LE: Tensor,
    topology: Topology,
    current_LR: Tensor | None,
    backend: Backend,
    stage: Stage,
) -> Plan:
    phy2log_LR, iterations, swaps = solved
    with stage("evaluate"):
        bound_L = backend.bound(load_LE, topology)
        moves = before = None
        if current_LR is not None:
            moves = backend.moves(current_LR, phy2log_LR, load_LE.shape[1], topology.num_gpus)
            balance = backend.balance(current_LR, load_LE, topology.num_gpus)
            before = Evaluation.of(*balance, bound_L)
        balance = backend.balance(phy2log_LR, load_LE, topology.num_gpus)
        after = Evaluation.of(*balance, bound_L, moves)
    return Plan(phy2log_LR, moves, before, after, iterations, swaps)
