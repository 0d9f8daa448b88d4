"""The forward pass of a rank, with a check of each token's result.

Legend for all shapes: N tokens of the step over all layers, H hidden, S slots of a rank.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from trimtab_client.placement import IntArray, Placement
from trimtab_tools.conformance.adapter import FloatArray
from trimtab_tools.simulate.checkpoint import Checkpoint
from trimtab_tools.simulate.encoding import decode, encode
from trimtab_tools.simulate.options import FleetOptions
from trimtab_tools.simulate.traffic import make_traffic, token_values

Compute = Callable[[int, int, FloatArray], FloatArray]
"""The weights of a layer and a slot, or of a layer and an expert, applied to tokens [T, H]."""


Exchange = Callable[[str, Sequence[bytes]], Sequence[bytes]]
"""A collective of the group: see `RankPipe.exchange`."""


@dataclass(frozen=True)
class StepResult:
    """The result of a step.

    Attributes:
        counts_LS: int64 [L, S], tokens that this rank's slots have processed.
        tokens: number of this rank's tokens that came back.
        wrong: number of these whose value is not what their expert gives.
        example: where a wrong token has been; empty if there is none.
    """

    counts_LS: npt.NDArray[np.int64]
    tokens: int
    wrong: int
    example: str


class _Batch(NamedTuple):
    """The tokens of a step, ordered by the rank that they go to and come back from."""

    layer_N: IntArray
    expert_N: IntArray
    slot_N: IntArray
    token_NH: FloatArray


class ForwardPass:
    """The forward passes of one rank.

    A mistake in the maps or weights of any rank gives a wrong number: a token goes where its
    own rank's maps say, is multiplied by the weights that are there, and must come back as
    the product with the weights that the checkpoint has for its expert.

    Args:
        options: sizes and seed.
        rank: this rank.
        checkpoint: the right weights.
        compute: what this rank's slots do: see `EngineAdapter.compute`.
        exchange: sends tokens to other ranks.
    """

    def __init__(
        self,
        options: FleetOptions,
        rank: int,
        checkpoint: Checkpoint,
        compute: Compute,
        exchange: Exchange,
    ) -> None:
        self._options = options
        self._rank = rank
        self._checkpoint = checkpoint
        self._compute = compute
        self._exchange = exchange
        self._traffic = make_traffic(options, rank)
        # How many tokens each expert has got from this rank, which picks the replica of the next
        # one. Each rank begins at another replica.
        self._sent_LE = np.full((options.layers, options.experts), rank, np.int64)

    def step(self, step: int, maps: Placement) -> StepResult:
        """Run a step by this rank's own maps."""
        batch = self._batch(step, maps)
        sent = self._exchange("tokens", self._by_rank(batch))
        counts_LS = np.zeros((self._options.layers, self._options.slots_per_rank), np.int64)
        back = self._exchange("values", self._answers(sent, counts_LS))
        value_NH = np.frombuffer(b"".join(back), np.float32).reshape(batch.token_NH.shape)
        wrong_N = (value_NH != self._right_values(batch)).any(axis=1)
        example = self._example(step, batch, int(wrong_N.argmax())) if wrong_N.any() else ""
        return StepResult(counts_LS, len(wrong_N), int(wrong_N.sum()), example)

    def _batch(self, step: int, maps: Placement) -> _Batch:
        """The step's tokens. Those of an expert take turns at its replicas."""
        layer_N, expert_N = self._traffic.routed(step)
        turn_N = self._turns(layer_N, expert_N)
        slot_N = maps.log2phy[layer_N, expert_N, turn_N % maps.logcnt[layer_N, expert_N]]
        order_N = np.argsort(slot_N // self._options.slots_per_rank, kind="stable")
        token_NH = token_values(self._options, self._rank, step, len(layer_N))
        return _Batch(layer_N[order_N], expert_N[order_N], slot_N[order_N], token_NH)

    def _turns(self, layer_N: IntArray, expert_N: IntArray) -> npt.NDArray[np.int64]:
        """The index of each token among the tokens of its expert since the first step."""
        key_N = layer_N * self._options.experts + expert_N
        order_N = np.argsort(key_N, kind="stable")
        sorted_N = key_N[order_N]
        turn_N = np.empty(len(key_N), np.int64)
        turn_N[order_N] = np.arange(len(key_N)) - np.searchsorted(sorted_N, sorted_N)
        turn_N += self._sent_LE[layer_N, expert_N]
        np.add.at(self._sent_LE, (layer_N, expert_N), 1)
        return turn_N

    def _by_rank(self, batch: _Batch) -> list[bytes]:
        ranks, slots = self._options.ranks, self._options.slots_per_rank
        bounds = np.searchsorted(batch.slot_N // slots, np.arange(ranks + 1)).tolist()
        return [
            encode(batch.layer_N[i:j], batch.slot_N[i:j], batch.token_NH[i:j])
            for i, j in pairwise(bounds)
        ]

    def _answers(self, sent: Sequence[bytes], counts_LS: npt.NDArray[np.int64]) -> list[bytes]:
        """The results of the tokens that each rank has sent to this one's slots, in their order."""
        hidden, first = self._options.hidden, self._rank * self._options.slots_per_rank
        layer_N, slot_N, token_NH = decode(b"".join(sent), hidden)
        np.add.at(counts_LS, (layer_N, slot_N - first), 1)
        value_NH = _compute_grouped(layer_N, slot_N, token_NH, self._compute)
        row = (2 + hidden) * 4
        bounds = [0, *itertools.accumulate(len(part) // row for part in sent)]
        return [value_NH[i:j].tobytes() for i, j in pairwise(bounds)]

    def _right_values(self, batch: _Batch) -> FloatArray:
        compute = self._checkpoint.product
        return _compute_grouped(batch.layer_N, batch.expert_N, batch.token_NH, compute)

    def _example(self, step: int, batch: _Batch, n: int) -> str:
        return (
            f"rank {self._rank}, step {step}: expert {batch.expert_N[n]} of layer "
            f"{batch.layer_N[n]}, in slot {batch.slot_N[n]} by the rank's maps"
        )


def _compute_grouped(
    layer_N: IntArray, other_N: IntArray, token_NH: FloatArray, compute: Compute
) -> FloatArray:
    """The results of tokens, [N, H]: one call for each layer and slot, or layer and expert."""
    order_N = np.lexsort((other_N, layer_N))
    layer_N, other_N, sorted_NH = layer_N[order_N], other_N[order_N], token_NH[order_N]
    begins_N = (np.diff(layer_N, prepend=-1) != 0) | (np.diff(other_N, prepend=-1) != 0)
    bounds = [*np.flatnonzero(begins_N).tolist(), len(order_N)]
    layers, others = layer_N[begins_N].tolist(), other_N[begins_N].tolist()
    # Plain integers: with hundreds of groups, indexing by numpy's own would cost more than the
    # products.
    for layer, other, (i, j) in zip(layers, others, pairwise(bounds), strict=True):
        sorted_NH[i:j] = compute(layer, other, sorted_NH[i:j])
    value_NH = np.empty_like(sorted_NH)
    value_NH[order_N] = sorted_NH
    return value_NH
