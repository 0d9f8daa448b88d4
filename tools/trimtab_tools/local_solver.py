"""The solver in this process. It needs the server's packages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab_client.arrays import as_amounts, as_indices
from trimtab_client.exceptions import TrimtabError, invalid_as
from trimtab_client.options import MoveBudget, SolverOptions, Topology
from trimtab_client.placement import Balance, Placement
from trimtab_client.results import Moves, PlaceResult

_TO_CONVERGENCE = -1


class SolverMissingError(TrimtabError):
    """The server's packages, which have the solver, are not installed."""


def local_solver() -> Callable[..., PlaceResult]:
    """A function like `Client.place` that calls the solver in this process.

    Raises:
        SolverMissingError: the server's packages are not installed.
    """
    try:
        import_module("trimtab_server.solver")
    except ImportError as error:
        hint = "the solver is not installed: pip install 'trimtab-tools[server]'"
        raise SolverMissingError(f"{hint} ({error})") from error
    return _place


def _place(
    load: npt.ArrayLike,
    topology: Topology,
    *,
    current: npt.ArrayLike | None = None,
    budget: MoveBudget | None = None,
    options: SolverOptions | None = None,
) -> PlaceResult:
    # Imported here: the other commands run without the server's packages.
    from trimtab_server import solver
    from trimtab_server.domain import errors
    from trimtab_server.domain import topology as domain

    load_LE, options = as_amounts(load, "load"), options or SolverOptions()
    try:
        plan = solver.place(
            load_LE.copy(),
            domain.Topology(**asdict(topology)),
            current=None if current is None else as_indices(current, "current"),
            budget=None if budget is None else solver.Budget(**_given(budget)),
            settings=solver.settings_for(**_settings(options, solver.DEFAULT_EFFORT)),
        )
    except errors.InvalidArgumentError as error:
        raise invalid_as(error) from error
    return PlaceResult(
        placement=Placement.of(plan.phy2log.numpy(), load_LE.shape[1], topology.num_gpus),
        moves=_moves(plan.moves),
        before=None if plan.before is None else _balance(plan.before),
        after=_balance(plan.after),
    )


def _given(options: Any) -> dict[str, Any]:
    return {name: value for name, value in asdict(options).items() if value is not None}


def _settings(options: SolverOptions, default_effort: str) -> dict[str, Any]:
    settings = {"effort": default_effort, **_given(options)}
    if settings.get("max_iterations") == _TO_CONVERGENCE:
        settings["max_iterations"] = None
    return settings


def _moves(moves: Any) -> Moves:
    if moves is None:
        return Moves.none()
    layer, slot, expert = moves.layer_slot_expert.numpy().astype(np.int32).T
    return Moves(layer, slot, expert, moves.source_gpus.numpy().astype(np.int32))


def _balance(evaluation: Any) -> Balance:
    tensors = evaluation.gpu_load, evaluation.imbalance, evaluation.bound
    return Balance(*(tensor.numpy() for tensor in tensors))
