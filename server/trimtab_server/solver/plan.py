"""place: from a load to a placement, by a new plan, an aligned one, or a few moves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from trimtab_server.domain.arrays import as_amounts, check_placement, replica_counts, unthreaded
from trimtab_server.domain.balance import Evaluation
from trimtab_server.domain.errors import require
from trimtab_server.domain.moves import Moves
from trimtab_server.domain.topology import Topology
from trimtab_server.solver.backends.backend import Backend, Solved
from trimtab_server.solver.backends.select import BackendName, backend_for
from trimtab_server.solver.budget import Budget
from trimtab_server.solver.improve import DEFAULT_TOP_K
from trimtab_server.solver.settings import DEFAULT_EFFORT, Effort, Settings, settings_for
from trimtab_server.solver.stages import Stage, untimed

_NO_BETTER = 1 - 2.0**-40
"""If the imbalance does not fall below this factor of the old one, it differs by rounding only."""


@dataclass(frozen=True)
class Plan:
    """A placement, its balance, and the work behind it.

    Attributes:
        phy2log: int64 [L, R].
        moves: from the current placement; None without one.
        before: balance of the current placement; None without one.
        after: balance of the new placement.
        iterations: refinement or improvement steps tried, over all rows and restarts.
        swaps: swaps applied, over all rows and restarts.
    """

    phy2log: Tensor
    moves: Moves | None
    before: Evaluation | None
    after: Evaluation
    iterations: int
    swaps: int


class _Problem(NamedTuple):
    """The checked arguments of `place`."""

    load_LE: Tensor
    topology: Topology
    current_LR: Tensor | None
    budget: Budget | None
    settings: Settings
    backend: Backend
    top_k: int = DEFAULT_TOP_K


def place(
    load: Any,
    topology: Topology,
    *,
    current: Any = None,
    budget: Budget | None = None,
    effort: Effort = DEFAULT_EFFORT,
    seed: int = 0,
    settings: Settings | None = None,
    top_k: int = DEFAULT_TOP_K,
    backend: BackendName | Backend = "auto",
    stage: Stage = untimed,
) -> Plan:
    """Place the experts of all layers, on the device of `load`.

    Without `current`, plan from scratch. With `current`, plan from scratch, then align the
    plan so that few experts move, and none in layers that gain nothing. With `current` and
    `budget`, improve `current` by the best few moves.

    Args:
        load: [L, E] of any real dtype, finite, >= 0.
        topology: where the experts may lie.
        current: int [L, R], the placement in force.
        budget: needs `current`.
        effort: "fast" or "balanced".
        seed: of the restarts.
        settings: of the packings; replaces `effort` and `seed`.
        top_k: of `improve`; used only with a budget.
        backend: see `backend_for`.
        stage: a context manager that is entered around each stage, for timing.

    Raises:
        InvalidArgumentError: an argument breaks a rule above.
    """
    settings = settings or settings_for(effort, seed=seed)
    problem = _checked(as_amounts(load, "load"), topology, current, budget, settings, backend)
    problem = problem._replace(top_k=top_k)
    return _evaluated(problem, _solved(problem, stage), stage)


def phy2log_for(
    load_LE: Tensor,
    topology: Topology,
    *,
    current: Any = None,
    budget: Budget | None = None,
    effort: Effort,
    seed: int,
    backend: BackendName | Backend,
) -> tuple[Tensor, Backend]:
    """`place` for checked loads, without evaluation: int64 [L, R], and the backend used."""
    settings = settings_for(effort, seed=seed)
    problem = _checked(load_LE, topology, current, budget, settings, backend)
    return _solved(problem, untimed).phy2log_LR, problem.backend


def _checked(
    load_LE: Tensor,
    topology: Topology,
    current: Any,
    budget: Budget | None,
    settings: Settings,
    backend: BackendName | Backend,
) -> _Problem:
    topology.check_experts(load_LE.shape[1])
    require(budget is None or current is not None, "budget", "is allowed only with current")
    chosen = backend_for(backend, load_LE.device)
    if current is not None:
        current = check_placement(current, "current", load_LE, topology.num_replicas)
    return _Problem(load_LE, topology, current, budget, settings, chosen)


def _solved(problem: _Problem, stage: Stage) -> Solved:
    load_LE, topology, current_LR, budget, settings, backend, _ = problem
    if current_LR is not None and budget is not None:
        with stage("improve"):
            return backend.improve(current_LR, load_LE, topology, budget, problem.top_k)
    with stage("plan"):
        full = backend.plan(load_LE, topology, settings)
    if current_LR is None:
        return full
    with stage("align"):
        sizes = load_LE.shape[1], topology.num_gpus, topology.num_parts
        aligned_LR = backend.align(full.phy2log_LR, current_LR, *sizes)
        kept_LR = _without_useless_moves(aligned_LR, current_LR, problem)
        return full._replace(phy2log_LR=kept_LR)


def _without_useless_moves(new_LR: Tensor, current_LR: Tensor, problem: _Problem) -> Tensor:
    """The new plan, with the current one in the layers that it does not balance better.

    A layer whose router groups are not each on one node always gets the new plan.
    """
    load_LE, topology, backend = problem.load_LE, problem.topology, problem.backend
    before_L, after_L = (
        unthreaded(backend.balance(plan_LR, load_LE, topology.num_gpus)[1])
        for plan_LR in (current_LR, new_LR)
    )
    stays_L = after_L >= before_L * _NO_BETTER
    if topology.num_parts > 1:
        stays_L = stays_L & unthreaded(keeps_groups(current_LR, topology, load_LE.shape[1]))
    if isinstance(stays_L, Tensor):
        return torch.where(stays_L.unsqueeze(1), current_LR, new_LR)
    return torch.from_numpy(np.where(stays_L[:, None], current_LR.numpy(), new_LR.numpy()))


def keeps_groups(phy2log_LR: Tensor, topology: Topology, num_experts: int) -> Tensor:
    """The layers in which each router group lies on one node, bool [L]; for several nodes."""
    groups, nodes = topology.num_groups, topology.num_parts
    experts_LR = unthreaded(phy2log_LR)
    slots = phy2log_LR.shape[1]
    slot_R = unthreaded(torch.arange(slots, device=phy2log_LR.device))
    cell_LR = experts_LR // (num_experts // groups) * nodes + slot_R // (slots // nodes)
    held_LC = unthreaded(replica_counts(torch.as_tensor(cell_LR), groups * nodes)) > 0
    # Each group lies on some node; if pairs of group and node are no more, it lies on one only.
    kept_L: Tensor = torch.as_tensor(held_LC.sum(1) == groups)
    return kept_L


def _evaluated(problem: _Problem, solved: Solved, stage: Stage) -> Plan:
    load_LE, topology, current_LR, _, _, backend, _ = problem
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
