"""Load to placement: plan anew, plan anew and align, or improve by few moves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from trimtab_server.domain.arrays import as_amounts, check_phy2log
from trimtab_server.domain.balance import Evaluation, evaluate_checked
from trimtab_server.domain.errors import require
from trimtab_server.domain.moves import Moves, moves_between
from trimtab_server.domain.topology import Topology
from trimtab_server.solver.align import align
from trimtab_server.solver.budget import Budget
from trimtab_server.solver.hierarchy import plan_fully
from trimtab_server.solver.improve import improve_within
from trimtab_server.solver.settings import (
    DEFAULT_EFFORT,
    Backend,
    Effort,
    Settings,
    resolve_backend,
    settings_for,
)
from trimtab_server.solver.solved import Solved
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
    backend: Backend = "auto",
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
        backend: "auto" or "reference".
        stage: entered around each stage, for a caller that has a clock.

    Raises:
        InvalidArgumentError: an argument breaks a rule above.
    """
    resolve_backend(backend)
    settings = settings or settings_for(effort, seed=seed)
    load_LE = as_amounts(load, "load")
    topology.check_experts(load_LE.shape[1])
    require(budget is None or current is not None, "budget", "is given without current")
    if current is None:
        full = plan_fully(load_LE, topology, settings, backend, stage)
        return _planned(full, load_LE, topology, None)
    current_LR = check_phy2log(current, "current", load_LE.shape[1], topology.num_replicas)
    current_LR = current_LR.to(load_LE.device)
    require(
        len(current_LR) == len(load_LE),
        "current",
        f"has {len(current_LR)} layers where load has {len(load_LE)}",
    )
    if budget is not None:
        with stage("improve"):
            improved = improve_within(current_LR, load_LE, topology, budget)
        return _planned(improved, load_LE, topology, current_LR)
    full = plan_fully(load_LE, topology, settings, backend, stage)
    with stage("align"):
        aligned_LR = align(
            full.phy2log_LR, current_LR, topology.num_gpus, num_nodes=topology.num_parts
        )
    return _planned(full._replace(phy2log_LR=aligned_LR), load_LE, topology, current_LR)


def _planned(
    solved: Solved, load_LE: Tensor, topology: Topology, current_LR: Tensor | None
) -> Plan:
    phy2log_LR, iterations, swaps = solved
    gpus = topology.num_gpus
    moves = before = None
    if current_LR is not None:
        moves = moves_between(current_LR, phy2log_LR, load_LE.shape[1], gpus)
        before = evaluate_checked(current_LR, load_LE, gpus)
    after = evaluate_checked(phy2log_LR, load_LE, gpus, moves)
    return Plan(phy2log_LR, moves, before, after, iterations, swaps)
