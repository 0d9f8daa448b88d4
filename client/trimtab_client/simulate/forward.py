"""A step of a rank: its tokens go to their experts by its own maps, and back, and are checked.

Legend for all shapes: N tokens of the step over all layers, H hidden, S slots of a rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from trimtab_client.placement import IntArray, Placement
from trimtab_client.simulate.checkpoint import Checkpoint, FloatArray
from trimtab_client.simulate.options import FleetOptions
from trimtab_client.simulate.rows import pack, unpack
from trimtab_client.simulate.traffic import Traffic


class Exchange(Protocol):
    """A collective of the group: see `Control.exchange`."""

    def __call__(self, what: str, parts: Sequence[bytes]) -> Sequence[bytes]:
        """A part for each rank, for one from each."""


class Compute(Protocol):
    """The weights in a slot applied to tokens: see `EngineAdapter.compute`."""

    def __call__(self, layer: int, slot: int, tokens: FloatArray) -> FloatArray:
        """[T, H] to [T, H]."""


@dataclass(frozen=True)
class Step:
    """What a step has come to.

    Attributes:
        counts_LS: int64 [L, S], tokens that this rank's slots have processed.
        tokens: of this rank, that came back.
        wrong: of these, with a value that is not their expert's.
        example: where a wrong one has been; empty if there is none.
    """

    counts_LS: npt.NDArray[np.int64]
    tokens: int
    wrong: int
    example: str


class _Batch(NamedTuple):
    """The tokens of a step, in the order in which they go out and come back: by rank."""

    layer_N: IntArray
    expert_N: IntArray
    slot_N: IntArray
    token_NH: FloatArray


class Forward:
    """The steps of one rank.

    What is wrong with the maps or with the weights of any rank shows in a number: a token
    goes where its own rank's maps say, is multiplied by whatever lies there, and must come
    back as the product with the weights that the checkpoint has for its expert.

    Args:
        options: sizes and seed.
        rank: this one.
        checkpoint: what is right.
        compute: what this rank's slots do.
        exchange: how tokens get to other ranks.
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
        self._traffic = Traffic(options, rank)

    def step(self, step: int, maps: Placement) -> Step:
        """Take a step by these maps, which are this rank's own."""
        batch = self._batch(step, maps)
        sent = self._exchange("tokens", self._by_rank(batch))
        counts_LS = np.zeros((self._options.layers, self._options.slots_per_rank), np.int64)
        back = self._exchange("values", self._answers(sent, counts_LS))
        value_NH = np.frombuffer(b"".join(back), np.float32).reshape(batch.token_NH.shape)
        wrong_N = (value_NH != self._right(batch)).any(axis=1)
        example = self._example(step, batch, int(wrong_N.argmax())) if wrong_N.any() else ""
        return Step(counts_LS, len(wrong_N), int(wrong_N.sum()), example)

    def _batch(self, step: int, maps: Placement) -> _Batch:
        """Tokens of an expert take turns at its replicas; each rank begins at another one."""
        experts_LT, token_LTH = self._traffic.of_step(step)
        layer_N = np.repeat(np.arange(len(experts_LT), dtype=np.int32), experts_LT.shape[1])
        expert_N = experts_LT.ravel()
        turn_N = np.arange(len(expert_N)) + self._rank
        slot_N = maps.log2phy[layer_N, expert_N, turn_N % maps.logcnt[layer_N, expert_N]]
        order_N = np.argsort(slot_N // self._options.slots_per_rank, kind="stable")
        token_NH = token_LTH.reshape(len(layer_N), -1)
        return _Batch(layer_N[order_N], expert_N[order_N], slot_N[order_N], token_NH[order_N])

    def _by_rank(self, batch: _Batch) -> list[bytes]:
        ranks, slots = self._options.ranks, self._options.slots_per_rank
        bounds = np.searchsorted(batch.slot_N // slots, np.arange(ranks + 1)).tolist()
        return [
            pack(batch.layer_N[i:j], batch.slot_N[i:j], batch.token_NH[i:j])
            for i, j in pairwise(bounds)
        ]

    def _answers(self, sent: Sequence[bytes], counts_LS: npt.NDArray[np.int64]) -> list[bytes]:
        """What this rank's slots make of the tokens that each rank has sent, in their order."""
        hidden, first = self._options.hidden, self._rank * self._options.slots_per_rank
        layer_N, slot_N, token_NH = unpack(b"".join(sent), hidden)
        np.add.at(counts_LS, (layer_N, slot_N - first), 1)
        value_NH = np.empty_like(token_NH)
        for layer, slot, which in _groups(layer_N, slot_N, self._options.slots):
            value_NH[which] = self._compute(layer, slot, token_NH[which])
        row = (2 + hidden) * 4
        lasts = np.cumsum([len(part) // row for part in sent])[:-1]
        return [part_NH.tobytes() for part_NH in np.split(value_NH, lasts)]

    def _right(self, batch: _Batch) -> FloatArray:
        right_NH = np.empty_like(batch.token_NH)
        groups = _groups(batch.layer_N, batch.expert_N, self._options.experts)
        for layer, expert, which in groups:
            right_NH[which] = batch.token_NH[which] @ self._checkpoint.weights(layer, expert)
        return right_NH

    def _example(self, step: int, batch: _Batch, n: int) -> str:
        return (
            f"rank {self._rank}, step {step}: expert {batch.expert_N[n]} of layer "
            f"{batch.layer_N[n]}, in slot {batch.slot_N[n]} by the rank's maps"
        )


def _groups(
    layer_N: IntArray, other_N: IntArray, others: int
) -> list[tuple[int, int, npt.NDArray[np.intp]]]:
    """Where each pair of a layer and something else stands: the pair, and its positions."""
    if not len(layer_N):
        return []
    key_N = layer_N.astype(np.int64) * others + other_N
    order_N = np.argsort(key_N, kind="stable")
    keys, firsts = np.unique(key_N[order_N], return_index=True)
    places = np.split(order_N, firsts[1:])
    return [
        (key // others, key % others, which)
        for key, which in zip(keys.tolist(), places, strict=True)
    ]
