"""Carries out requests: checks limits, runs the solver in the queue, reports what it took."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trimtab_protocol.placement import Placement
from trimtab_server.device import synchronize
from trimtab_server.domain.balance import Evaluation
from trimtab_server.domain.errors import invalid, require
from trimtab_server.domain.moves import Moves
from trimtab_server.domain.placement import placement_of, tensor_of
from trimtab_server.domain.topology import Topology
from trimtab_server.engine.config import Limits
from trimtab_server.engine.limits import check_pack, check_place
from trimtab_server.engine.observer import Observer, When
from trimtab_server.engine.queue import SolverQueue
from trimtab_server.solver.backends.backend import Backend
from trimtab_server.solver.budget import Budget
from trimtab_server.solver.improve import DEFAULT_TOP_K
from trimtab_server.solver.packing import pack
from trimtab_server.solver.plan import Plan, place
from trimtab_server.solver.settings import Effort, Settings, settings_for
from trimtab_server.solver.stages import Stage

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Options:
    """How hard a request asks the solver to try.

    Attributes:
        effort: the preset; None: the server's default.
        overrides: fields of `Settings` that differ from the preset.
    """

    effort: Effort | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Terms:
    """What a load is placed under; all loads of a stream share it.

    Attributes:
        topology: slots, GPUs, nodes and groups.
        budget: of moves, if any.
        options: how hard to try.
        top_k: of `improve`, where there is a budget.
    """

    topology: Topology
    budget: Budget | None = None
    options: Options = Options()
    top_k: int = DEFAULT_TOP_K


@dataclass(frozen=True)
class InForce:
    """A placement in force as a caller tells it: not checked yet.

    Attributes:
        phy2log: integers [L, R].
        digest: what `Placement.digest` has to be; empty: anything.
    """

    phy2log: Array
    digest: bytes = b""

    @property
    def num_experts(self) -> int:
        """E, if this is a placement at all.

        At most R, so that a wild entry cannot make the check that names it large.
        """
        highest, slots = int(self.phy2log.max()), int(self.phy2log.shape[1])
        return max(1, min(highest + 1, slots))

    def checked(self, num_experts: int, num_gpus: int) -> Placement:
        """The placement; raises InvalidArgumentError where it is none."""
        placement = placement_of(self.phy2log, num_experts, num_gpus)
        require(
            self.digest in (b"", placement.digest),
            "current.digest",
            f"{self.digest.hex()} is not the digest of current.phy2log, {placement.digest.hex()}",
        )
        return placement


@dataclass(frozen=True)
class Packed:
    """Pack of each item and its position there, both int64 [X, n] on the CPU."""

    pack_index: Tensor
    rank_in_pack: Tensor


@dataclass(frozen=True)
class Placed:
    """A placement with its moves and balance, on the CPU.

    `moves` and `before` are None where there was no current placement.
    """

    placement: Placement
    moves: Moves | None
    before: Evaluation | None
    after: Evaluation

    def of_layers(self, layer_A: npt.NDArray[np.int64]) -> Placed:
        """Some layers, ascending."""
        kept_A = np.arange(len(layer_A))
        return Placed(
            self.placement.of_layers(layer_A),
            None if self.moves is None else Moves.none().with_layers(kept_A, self.moves, layer_A),
            None if self.before is None else self.before.of_layers(layer_A),
            self.after.of_layers(layer_A),
        )

    def with_layers(
        self, layer_A: npt.NDArray[np.int64], other: Placed, row_A: npt.NDArray[np.int64]
    ) -> Placed:
        """The same, but in layers `layer_A`, ascending, what `other` has in `row_A`."""
        moves = None
        if self.moves is not None and other.moves is not None:
            moves = self.moves.with_layers(layer_A, other.moves, row_A)
        return Placed(
            self.placement.with_layers(layer_A, other.placement, row_A),
            moves,
            self.before,
            self.after.with_layers(layer_A, other.after, row_A),
        )


def urgent_first(placed: Placed) -> tuple[int, ...]:
    """All layers, those first whose imbalance falls most; none where nothing was in force."""
    if placed.before is None:
        return ()
    return largest_first((placed.before.imbalance - placed.after.imbalance).numpy())


def largest_first(gain_L: npt.NDArray[np.float64]) -> tuple[int, ...]:
    """All layers, those first that gain most."""
    return tuple((-gain_L).argsort(kind="stable").tolist())


class Planner:
    """Packs and places for many callers, with one backend, within limits.

    Loads and weights are numpy arrays, which may be read-only. Every method
    raises InvalidArgumentError for input that breaks a rule and
    ResourceExhaustedError (without `retry_after`) for input over a limit, beside
    what `SolverQueue.run` raises. Deadlines are on the event loop's clock.
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
    ) -> Packed:
        """Pack the items [X, n] of each row into packs; see `balanced_packing`."""
        effort, settings = self._settings(options)
        check_pack(self._limits, weight.shape, num_packs, settings, grouped=item_group is not None)

        def job() -> Packed:
            packing = pack(
                self._tensor(weight),
                num_packs,
                item_group=None if item_group is None else self._tensor(item_group),
                settings=settings,
                backend=self._backend,
                stage=self._stage(effort),
            )
            self._observer.solved(packing.iterations, packing.swaps)
            return Packed(packing.pack_index.cpu(), packing.rank_in_pack.cpu())

        return await self._queue.run(job, deadline=deadline)

    async def place(
        self,
        load: Array,
        terms: Terms,
        current: Placement | InForce | None = None,
        *,
        deadline: float = math.inf,
    ) -> Placed:
        """Place a load [L, E], from `current` where there is one; see `solver.plan.place`."""
        effort, settings = self._settings(terms.options)
        if current is not None:
            _check_fits(load, current)
        self._check_place(load.shape, terms, has_current=current is not None)
        experts, gpus = load.shape[1], terms.topology.num_gpus

        def job() -> Placed:
            start = current.checked(experts, gpus) if isinstance(current, InForce) else current
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
            placed = _on_cpu(plan, experts, gpus)
            self._report(plan, placed)
            return placed

        return await self._queue.run(job, deadline=deadline)

    async def accept(
        self, current: InForce, terms: Terms, *, deadline: float = math.inf
    ) -> Placement:
        """The placement that `current` tells of, checked, before there is a load."""
        shape = (current.phy2log.shape[0], current.num_experts)
        self._check_place(shape, terms, has_current=True)
        return await self._queue.run(
            partial(current.checked, shape[1], terms.topology.num_gpus), deadline=deadline
        )

    async def warm(self) -> None:
        """Solve small problems of each kind, so that the first caller does not wait."""
        load_LE = np.arange(32, dtype=np.float64).reshape(2, 16)
        efforts = [Options(effort) for effort in get_args(Effort)]
        # Global; hierarchical, with few ways to deal groups to nodes, and with too many.
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
        # A copy, since torch warns of arrays that are read-only; NumPy's: see `unthreaded`.
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
            self._observer.moved(len(placed.moves))

    def _report_imbalance(self, when: When, balance: Evaluation) -> None:
        ratios = _worst_and_median(balance.imbalance)
        if ratios is not None:
            self._observer.imbalance(when, *ratios)


class PlaceStream:
    """A run of loads under the same terms, each placed from the answer before it.

    `current` is the placement in force. It changes only when a load was placed.
    A budget counts from the first load that finds a placement in force. Loads of
    one stream are placed one at a time: await each before the next.
    """

    def __init__(self, planner: Planner, terms: Terms, current: Placement | None = None) -> None:
        self._planner = planner
        self._terms = terms
        self.current = current

    async def place(self, load: Array, *, deadline: float = math.inf) -> Placed:
        """Place one load [L, E]; raises what `Planner.place` raises."""
        terms = self._terms if self.current else replace(self._terms, budget=None)
        placed = await self._planner.place(load, terms, self.current, deadline=deadline)
        self.current = placed.placement
        return placed


def _check_fits(load: Array, current: Placement | InForce) -> None:
    layers = current.phy2log.shape[0]
    # What is not checked yet does not know its experts: its check is against the load.
    experts = load.shape[1] if isinstance(current, InForce) else current.num_experts
    if load.shape != (layers, experts):
        raise invalid(
            "load",
            f"shape {load.shape} does not fit the placement in force, which has {layers} "
            f"layers of {experts} experts",
        )


def _worst_and_median(ratio_L: Tensor) -> tuple[float, float] | None:
    """Of all layers; None where it is not finite.

    Loads near the end of float64 add up to infinity, and one value that is not
    finite would spoil the sum of a metric for good.
    """
    worst, median = float(ratio_L.max()), float(ratio_L.quantile(0.5))
    return (worst, median) if math.isfinite(worst) and math.isfinite(median) else None


def _on_cpu(plan: Plan, num_experts: int, num_gpus: int) -> Placed:
    placement = placement_of(plan.phy2log, num_experts, num_gpus)
    _ = placement.digest  # computed here, off the event loop
    return Placed(
        placement,
        None if plan.moves is None else _tensors_on_cpu(plan.moves),
        None if plan.before is None else _tensors_on_cpu(plan.before),
        _tensors_on_cpu(plan.after),
    )


_Value = TypeVar("_Value", Moves, Evaluation)


def _tensors_on_cpu(value: _Value) -> _Value:
    return replace(value, **{name: tensor.cpu() for name, tensor in vars(value).items()})
