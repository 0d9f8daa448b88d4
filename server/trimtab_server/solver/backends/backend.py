"""The interface of all backends, and the values that they return.

Legend for all shapes: L layers, E logical experts, R physical slots, G GPUs,
S = R / G slots of a GPU, N nodes; X rows of a batch, n items, P packs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from torch import Tensor

from trimtab_server.domain.moves import Moves
from trimtab_server.domain.topology import Topology
from trimtab_server.solver.budget import Budget
from trimtab_server.solver.settings import Settings


@dataclass(frozen=True)
class Packing:
    """The pack of each item, and the work behind it.

    Attributes:
        pack_index: int64 [X, n], the pack of each item.
        rank_in_pack: int64 [X, n], its position in the pack, in [0, n / P).
        iterations: refinement steps, summed over rows and restarts.
        swaps: swaps applied, summed over rows and restarts.
    """

    pack_index: Tensor
    rank_in_pack: Tensor
    iterations: int
    swaps: int


class Replicas(NamedTuple):
    """Replicas of each row's experts: see `replicate_experts`."""

    phy2log_XR: Tensor
    rank_XR: Tensor
    logcnt_XE: Tensor


class Solved(NamedTuple):
    """A placement, and the work behind it.

    Attributes:
        phy2log_LR: int64, the expert of each slot.
        iterations: steps tried, summed over rows and restarts.
        swaps: swaps applied, summed over rows and restarts.
    """

    phy2log_LR: Tensor
    iterations: int
    swaps: int


def replica_cap(num_replicas: int, num_experts: int, wanted: int) -> int:
    """How many replicas an expert may get: `wanted`, or more if the slots leave no choice."""
    return max(wanted, -(-num_replicas // num_experts))


FallbackReason = Literal["missing", "shape", "cold", "error", "backoff"]

Fallback = Callable[[str, FallbackReason, str], None]
"""Called when another backend takes over a backend's work: (backend, reason, details in words).

"missing": the backend cannot run on this machine. "shape": it does not support the sizes of
a request. "cold": its kernels for a new kind of request are still being compiled. "error":
it failed. "backoff": it failed at this kind of request before, and waits before it tries again.
Called on the thread that noticed; it must return at once and not raise.
"""


def ignore_fallback(backend: str, reason: FallbackReason, detail: str) -> None:
    """A `Fallback` that does nothing."""


class Backend(Protocol):
    """One implementation of the solver's computations on arrays.

    All backends give the same answers to the last bit, whatever the device, the
    number of threads, or the batching of rows; the reference backend defines them.
    Callers have checked all input: amounts are float64, finite and >= 0, indices
    int64 and in range. The tensors of a call are on one device, which may be any, and
    the answers are on the same one. Input is never written to. Several threads may call
    at once.
    """

    @property
    def name(self) -> str:
        """Its name in settings, and in the labels of metrics."""

    @property
    def host(self) -> Backend:
        """The backend that answers if this one cannot; itself if it always can."""
        return self

    @property
    def kinds(self) -> Mapping[str, int]:
        """How many kinds of request are "ready", "compiling" and "failing"; empty without kinds."""
        return {}

    def replicate(self, load_XE: Tensor, num_replicas: int, limit: int) -> Replicas:
        """Give out R slots, at most `limit` to each expert; see `replicate_experts`."""

    def pack(
        self, weight_XI: Tensor, num_packs: int, group_XI: Tensor | None, settings: Settings
    ) -> Packing:
        """Pack items; groups are numbered from 0 in each row. See `balanced_packing`."""

    def plan(self, load_LE: Tensor, topology: Topology, settings: Settings) -> Solved:
        """Place all experts from scratch; see `reference/plan.py`."""

    def improve(
        self, start_LR: Tensor, load_LE: Tensor, topology: Topology, budget: Budget, top_k: int
    ) -> Solved:
        """Improve a placement within a budget; see `improve`."""

    def bound(self, load_LE: Tensor, topology: Topology) -> Tensor:
        """Lower bound on the imbalance of any placement, float64 [L]; see `evaluate`."""

    def balance(self, phy2log_LR: Tensor, load_LE: Tensor, num_gpus: int) -> tuple[Tensor, Tensor]:
        """Load of each GPU [L, G] and imbalance [L], float64; see `evaluate`."""

    def moves(self, current_LR: Tensor, new_LR: Tensor, num_experts: int, num_gpus: int) -> Moves:
        """The moves from one placement to another; see `moves_between`."""

    def align(
        self, new_LR: Tensor, current_LR: Tensor, num_experts: int, num_gpus: int, num_nodes: int
    ) -> Tensor:
        """The new placement, renamed to differ least from the current one; see `align`."""

    def slot_maps(self, phy2log_LR: Tensor, num_experts: int) -> tuple[Tensor, Tensor]:
        """Slots of each expert [L, E, X], ascending, padded with -1, and their number [L, E].

        Both are int64; X is the largest number of slots of any expert in any layer.
        """
