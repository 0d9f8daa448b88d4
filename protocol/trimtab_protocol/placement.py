"""A placement: which expert lies in each slot. Immutable, and named by its digest."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from trimtab_protocol.errors import malformed

IntArray = npt.NDArray[np.int32]

_PREFIX = b"trimtab.placement.v1"
_SHAPE = struct.Struct("<4I")


@dataclass(frozen=True, eq=False)
class Placement:
    """The `phy2log` of all layers. Two placements are equal if their digests are.

    `of` checks what it is given; the constructor does not. All arrays are int32 and read-only.

    Attributes:
        phy2log: [L, R], the logical expert in each physical slot.
        num_experts: E.
        num_gpus: G; slot r lies on GPU r // (R / G).
    """

    phy2log: IntArray
    num_experts: int
    num_gpus: int

    @classmethod
    def of(cls, phy2log: Any, num_experts: int, num_gpus: int) -> Self:
        """Check `phy2log`, an array of integers [L, R], and take a copy of it.

        Raises:
            MalformedError: another type or rank, G does not divide R, an entry is outside
                [0, E), or an expert has no slot in a layer.
        """
        phy2log_LR = np.asarray(phy2log)
        if phy2log_LR.dtype.kind not in "iu":
            raise malformed("phy2log", f"dtype {phy2log_LR.dtype} is not an integer type")
        if phy2log_LR.ndim != 2 or not phy2log_LR.size:
            raise malformed("phy2log", f"shape {phy2log_LR.shape} is not [L, R], both at least 1")
        slots = phy2log_LR.shape[1]
        if num_gpus < 1 or slots % num_gpus:
            raise malformed("num_gpus", f"{num_gpus} does not divide the number of slots ({slots})")
        if phy2log_LR.min() < 0 or phy2log_LR.max() >= num_experts:
            layer, slot = np.argwhere((phy2log_LR < 0) | (phy2log_LR >= num_experts))[0]
            what = f"{phy2log_LR[layer, slot]} is not an expert in [0, {num_experts})"
            raise malformed(f"phy2log[{layer}, {slot}]", what)
        # A copy always: the caller may write to its own array later.
        placement = cls(read_only(phy2log_LR.astype(np.int32)), num_experts, num_gpus)
        placement._require_slots()
        return placement

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 that names the placement; placement.proto defines the bytes it is taken of."""
        return hashlib.sha256(_PREFIX + self.to_bytes()).digest()

    def to_bytes(self) -> bytes:
        """L, R, E and G as uint32, then `phy2log` as int32, all little-endian."""
        layers, slots = self.phy2log.shape
        shape = _SHAPE.pack(layers, slots, self.num_experts, self.num_gpus)
        return shape + self.phy2log.astype("<i4", copy=False).tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The placement that `to_bytes` wrote.

        Raises ValueError or struct.error if the data has another length, and else what `of` raises.
        """
        layers, slots, experts, gpus = _SHAPE.unpack_from(data)
        phy2log_LR = np.frombuffer(data, "<i4", offset=_SHAPE.size).reshape(layers, slots)
        return cls.of(phy2log_LR, experts, gpus)

    @cached_property
    def logcnt(self) -> IntArray:
        """Replicas of each expert, [L, E]."""
        layers = len(self.phy2log)
        first_L1 = np.arange(layers)[:, None] * self.num_experts
        counts = np.bincount((self.phy2log + first_L1).ravel(), minlength=layers * self.num_experts)
        return read_only(counts.reshape(layers, -1).astype(np.int32))

    @cached_property
    def rank(self) -> IntArray:
        """Which replica of its expert each slot holds, counted in slot order, [L, R]."""
        order_LR = np.argsort(self.phy2log, axis=1, kind="stable")
        sorted_LR = np.take_along_axis(self.phy2log, order_LR, axis=1)
        first_LE = np.cumsum(self.logcnt, axis=1) - self.logcnt
        positions_R = np.arange(self.phy2log.shape[1])
        rank_LR = np.empty_like(self.phy2log)
        ranks = positions_R - np.take_along_axis(first_LE, sorted_LR, axis=1)
        np.put_along_axis(rank_LR, order_LR, ranks.astype(np.int32), axis=1)
        return read_only(rank_LR)

    @cached_property
    def log2phy(self) -> IntArray:
        """The slots of each expert, ascending, [L, E, X], padded with -1."""
        layers, slots = self.phy2log.shape
        log2phy_LEX = np.full((layers, self.num_experts, self.logcnt.max()), -1, np.int32)
        layer_L1 = np.arange(layers)[:, None]
        log2phy_LEX[layer_L1, self.phy2log, self.rank] = np.arange(slots, dtype=np.int32)
        return read_only(log2phy_LEX)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Placement) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def _require_slots(self) -> None:
        """Raise MalformedError if an expert has no slot in a layer."""
        if self.num_experts > self.phy2log.shape[1]:
            # Some expert has none. `logcnt` would take memory for as many as a message claims.
            here = np.unique(self.phy2log[0])
            gaps = np.flatnonzero(here != np.arange(len(here)))
            layer, expert = 0, int(gaps[0]) if len(gaps) else len(here)
        elif not self.logcnt.all():
            layer, expert = np.argwhere(self.logcnt == 0)[0].tolist()
        else:
            return
        raise malformed("phy2log", f"expert {expert} has no slot in layer {layer}")


def read_only(array: IntArray) -> IntArray:
    """The same array, to which nobody can write any more."""
    array.setflags(write=False)
    return array
