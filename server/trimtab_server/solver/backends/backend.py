"""What every backend does, and what comes out of it.

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
    """Where each item went, and what it took.

    Attributes:
        pack_index: int64 [X, n], the pack of each item.
        rank_in_pack: int64 [X, n], its position in the pack, in [0, n / P).
        iterations: refinement steps, summed over rows and restarts.
        swaps: swaps applied, likewise.
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
    """A placement, and what it took.

    Attributes:
        phy2log_LR: int64, the expert of each slot.
        iterations: steps tried, summed over rows and restarts.
        swaps: swaps applied, likewise.
    """

    phy2log_LR: Tensor
    iterations: int
    swaps: int


def replica_cap(num_replicas: int, num_experts: int, most: int) -> int:
    """Most replicas that an expert may get: more than `most` only if slots leave no choice."""
    return max(most, -(-num_replicas // num_experts))


FallbackReason = Literal["missing", "shape", "cold", "error", "backoff"]

Fallback = Callable[[str, FallbackReason, str], None]
"""Told when a backend's work goes to the next best: (its name, why, in words).

"missing": it cannot run on this machine. "shape": a request is beyond it. "cold": its
kernels for a new kind of request are still being compiled. "error": it failed.
"backoff": it failed at this kind of request before, and it is too early to try again.
Called on the thread that found out; it must return at once and not raise.
"""


def no_matter(backend: str, reason: FallbackReason, detail: str) -> None:
    """The hook of those who do not want to know."""


class Backend(Protocol):
    """One way to carry out the solver's work on arrays.

    All backends give the same answers to the last bit, whatever the device, the
    number of threads, or how rows are batched; the reference backend defines them.
    Callers have checked all input: amounts are float64, finite and >= 0, indices
    int64 and in range. Tensors may come on any device, all on the same one, and
    answers go where they came from. Input is never written to. Several threads
    may call at once.
    """

    @property
    def name(self) -> str:
        """What users call it, and the label of its metrics."""

    @property
    def host(self) -> Backend:
        """What answers where this one cannot; itself, if it always can."""

    @property
    def kinds(self) -> Mapping[str, int]:
        """How many kinds of request are "ready", "compiling" or "failing"; empty: no difference."""

    def replicate(self, load_XE: Tensor, num_replicas: int, most: int) -> Replicas:
        """Give out R slots, at most `most` to an expert; see `replicate_experts`."""

    def pack(
        self, weight_XI: Tensor, num_packs: int, group_XI: Tensor | None, settings: Settings
    ) -> Packing:
        """Pack items; groups are numbered from 0 in each row. See `balanced_packing`."""

    def plan(self, load_LE: Tensor, topology: Topology, settings: Settings) -> Solved:
        """Place all experts from scratch; see `plan_in_parts`."""

    def improve(
        self,
        start_LR: Tensor,
        load_LE: Tensor,
        topology: Topology,
        budget: Budget,
        top_k: int,
    ) -> Solved:
        """Improve a placement within a budget; see `improve`."""

    def bound(self, load_LE: Tensor, topology: Topology) -> Tensor:
        """Lower bound on the imbalance of any placement, float64 [L]; see `evaluate`."""

    def balance(self, phy2log_LR: Tensor, load_LE: Tensor, num_gpus: int) -> tuple[Tensor, Tensor]:
        """Load of each GPU [L, G] and imbalance [L], float64; see `evaluate`."""

    def moves(self, current_LR: Tensor, new_LR: Tensor, num_experts: int, num_gpus: int) -> Moves:
        """The moves from one placement to another; see `moves_between`."""

    def align(
        self,
        new_LR: Tensor,
        current_LR: Tensor,
        num_experts: int,
        num_gpus: int,
        num_nodes: int,
    ) -> Tensor:
        """The first placement, renamed to meet the second, int64 [L, R]; see `align`."""

    def slot_maps(self, phy2log_LR: Tensor, num_experts: int) -> tuple[Tensor, Tensor]:
        """Slots of each expert [L, E, X], ascending, padded with -1, and how many [L, E].

        Both int64; X is the most slots that any expert of any layer has.
        """
