"""Carries out requests: checks limits, runs the solver in the queue, and reports its work."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from trimtab_protocol.placement import Placement
from trimtab_server.device import synchronize
from trimtab_server.domain.balance import Evaluation
from trimtab_server.domain.errors import invalid
from trimtab_server.domain.placement import tensor_of
from trimtab_server.domain.topology import Topology
from trimtab_server.engine.config import Limits
from trimtab_server.engine.limits import check_pack, check_place
from trimtab_server.engine.observer import Observer, When
from trimtab_server.engine.plan_request import Array, Options, Terms, UncheckedPlacement
from trimtab_server.engine.plan_result import Placed, placed_on_cpu
from trimtab_server.engine.queue import SolverQueue
from trimtab_server.solver.backends.backend import Backend, Packing
from trimtab_server.solver.budget import Budget
from trimtab_server.solver.packing import pack
from trimtab_server.solver.plan import Plan, place
from trimtab_server.solver.settings import Effort, Settings, settings_for
from trimtab_server.solver.stages import Stage


class Planner:
    """Packs and places for many callers, with one backend, within limits.

    Loads and weights are numpy arrays, which may be read-only. Every method raises
    InvalidArgumentError for input that breaks a rule, ResourceExhaustedError (without
    `retry_after`) for input over a limit, and the errors of `SolverQueue.run`. Deadlines are on
    the event loop's clock.

    Args:
        device: where the backend's tensors are.
        limits: of one request.
        default_effort: for requests that do not say.
        observer: told of the work.
    """

    def __init__(
        self,
        queue: SolverQueue,
        backend: Backend,
        device: torch.device,
        limits: Limits,
        default_effort: Effort,
        observer: Observer,
    ) -> None:
        self._queue = queue
        self._backend = backend
        self._device = device
        self._limits = limits
        self._default_effort = default_effort
        self._observer = observer

    async def pack(
        self,
        weight: Array,
        num_packs: int,
        item_group: Array | None,
        options: Options,
        *,
        deadline: float = math.inf,
    ) -> Packing:
        """Pack the items [X, n] of each row; see `balanced_packing`. The result is on the CPU."""
        effort, settings = self._settings(options)
        check_pack(self._limits, weight.shape, num_packs, settings, grouped=item_group is not None)

        def job() -> Packing:
            packing = pack(
                self._tensor(weight),
                num_packs,
                item_group=None if item_group is None else self._tensor(item_group),
                settings=settings,
                backend=self._backend,
                stage=self._stage(effort),
            )
            self._observer.solved(packing.iterations, packing.swaps)
            index, rank = packing.pack_index.cpu(), packing.rank_in_pack.cpu()
            return replace(packing, pack_index=index, rank_in_pack=rank)

        return await self._queue.run(job, deadline=deadline)

    async def place(
        self,
        load: Array,
        terms: Terms,
        current: Placement | UncheckedPlacement | None = None,
        *,
        deadline: float = math.inf,
    ) -> Placed:
        """Place a load [L, E], starting from `current` if given; see `solver.plan.place`."""
        effort, settings = self._settings(terms.options)
        if current is not None:
            _check_fits(load, current)
        self._check_place(load.shape, terms, has_current=current is not None)
        experts, gpus = load.shape[1], terms.topology.num_gpus

        def job() -> Placed:
            start = (
                current.checked(experts, gpus)
                if isinstance(current, UncheckedPlacement)
                else current
            )
            plan = place(
                self._tensor(load),
                terms.topology,
                current=None if start is None else tensor_of(start).to(self._device),
                budget=terms.budget,
                settings=settings,
                top_k=terms.top_k,
                backend=self._backend,
                stage=self._stage(effort),
            )
            placed = placed_on_cpu(plan, experts, gpus)
            self._report(plan, placed)
            return placed

        return await self._queue.run(job, deadline=deadline)

    async def accept(
        self, current: UncheckedPlacement, terms: Terms, *, deadline: float = math.inf
    ) -> Placement:
        """Check a placement before there is a load for it; returns the placement."""
        shape = (current.phy2log.shape[0], current.num_experts)
        self._check_place(shape, terms, has_current=True)
        return await self._queue.run(
            partial(current.checked, shape[1], terms.topology.num_gpus), deadline=deadline
        )

    async def warm(self) -> None:
        """Solve a small problem of each kind, so that no caller has to wait for it."""
        load_LE = np.arange(32, dtype=np.float64).reshape(2, 16)
        efforts = [Options(effort) for effort in get_args(Effort)]
        # Global; hierarchical, with few ways to assign groups to nodes, and with many.
        for topology in (Topology(20, 4), Topology(20, 4, 2, 4), Topology(20, 4, 4, 16)):
            for options in efforts:
                await self.place(load_LE, Terms(topology, options=options))
        for options in efforts:
            await self.pack(load_LE, 4, None, options)
        first = await self.place(load_LE, Terms(Topology(20, 4)))
        for budget in (None, Budget(), Budget(max_moves=2)):
            await self.place(load_LE[::-1].copy(), Terms(Topology(20, 4), budget), first.placement)

    def _check_place(self, shape: Sequence[int], terms: Terms, *, has_current: bool) -> None:
        settings = self._settings(terms.options)[1]
        budgeted = terms.budget is not None
        check_place(
            self._limits, shape, terms.topology, settings, current=has_current, budget=budgeted
        )

    def _settings(self, options: Options) -> tuple[Effort, Settings]:
        effort = options.effort or self._default_effort
        return effort, settings_for(effort, **options.overrides)

    def _tensor(self, array: Array) -> Tensor:
        # Torch warns of read-only arrays, hence the copy; NumPy makes it, see `unthreaded`.
        return torch.from_numpy(array.copy()).to(self._device)

    def _stage(self, effort: Effort) -> Stage:
        @contextmanager
        def timed(name: str) -> Iterator[None]:
            started = time.perf_counter()
            yield
            synchronize(self._device)
            seconds = time.perf_counter() - started
            self._observer.stage(name, self._backend.name, effort, seconds)

        return timed

    def _report(self, plan: Plan, placed: Placed) -> None:
        self._observer.solved(plan.iterations, plan.swaps)
        if placed.before is not None:
            self._report_imbalance("before", placed.before)
        self._report_imbalance("after", placed.after)
        bound = _worst_and_median(placed.after.bound)
        if bound is not None:
            self._observer.imbalance_bound(*bound)
        if placed.moves is not None:
            self._observer.moves_planned(len(placed.moves))

    def _report_imbalance(self, when: When, balance: Evaluation) -> None:
        ratios = _worst_and_median(balance.imbalance)
        if ratios is not None:
            self._observer.imbalance(when, *ratios)


def _check_fits(load: Array, current: Placement | UncheckedPlacement) -> None:
    layers = current.phy2log.shape[0]
    # An unchecked placement has no number of experts: it is checked against that of the load.
    experts = load.shape[1] if isinstance(current, UncheckedPlacement) else current.num_experts
    if load.shape != (layers, experts):
        raise invalid(
            "load",
            f"shape {load.shape} does not fit the placement in force, which has {layers} "
            f"layers of {experts} experts",
        )


def _worst_and_median(ratio_L: Tensor) -> tuple[float, float] | None:
    """The worst and the median of all layers; None unless both are finite.

    Loads near the largest float64 add up to infinity, and one infinite value would make the sum
    of a metric infinite for good.
    """
    worst, median = float(ratio_L.max()), float(ratio_L.quantile(0.5))
    return (worst, median) if math.isfinite(worst) and math.isfinite(median) else None
