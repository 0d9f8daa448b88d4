"""Computes the weights that each worker has to receive, send and copy for an offer.

`Transfers` documents the rows, and what a worker does with them at the flip.

Legend for all shapes: K layers that differ, R slots of a layer, G GPUs, S slots of a GPU,
E experts; M items, X GPUs to receive from.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trimtab_protocol.messages import Transfers
from trimtab_protocol.placement import Placement
from trimtab_server.domain.moves import moves_between
from trimtab_server.domain.placement import tensor_of
from trimtab_server.domain.topology import Topology

Ints = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Differences:
    """The transfers of all workers together, with the arrays of `Transfers`.

    `sends` has a row for each row of `receives`, in the same order.
    """

    layers: Ints
    old_rows: Ints
    new_rows: Ints
    receives: Ints
    receive_sources: Ints
    sends: Ints
    copies: Ints
    slots_per_gpu: int
    bytes_per_expert: int

    @classmethod
    def between(
        cls, base: Placement, new: Placement, topology: Topology, bytes_per_expert: int
    ) -> Differences:
        """The differences of two placements that have the shape of the topology.

        The sources of a receive are sorted: GPUs on the receiver's node first, then GPUs from which
        fewer other receivers read that expert, then GPUs that send less over all layers, then lower
        GPUs. Reads and sends are counted over the earlier receives, each from its first source.
        """
        changed_LR = base.phy2log != new.phy2log
        layers = np.flatnonzero(changed_LR.any(1))
        old_KR, new_KR = base.phy2log[layers], new.phy2log[layers]
        moves = moves_between(
            tensor_of(base)[layers], tensor_of(new)[layers], base.num_experts, base.num_gpus
        )
        arrivals = moves.layer_slot_expert.numpy()
        sources = _nearest_first(arrivals, moves.source_gpus.numpy(), topology)
        sends = _sends(old_KR, arrivals, sources, topology.slots_per_gpu)
        copies = _copies(old_KR, new_KR, arrivals, topology.slots_per_gpu)
        return cls(
            layers.astype(np.int32),
            old_KR,
            new_KR,
            _with_layer_numbers(arrivals, layers),
            sources.astype(np.int32),
            _with_layer_numbers(sends, layers),
            _with_layer_numbers(copies, layers),
            topology.slots_per_gpu,
            bytes_per_expert,
        )

    def for_worker(self, gpus: tuple[int, ...]) -> Transfers:
        """The transfers of the worker that owns these GPUs."""
        received = self._on(gpus, self.receives)
        sources = self.receive_sources[received]
        return Transfers(
            self.layers,
            self.old_rows,
            self.new_rows,
            self.receives[received],
            sources[:, : (sources >= 0).sum(1).max(initial=0)],
            self.sends[self._on(gpus, self.sends)],
            self.copies[self._on(gpus, self.copies)],
            int(received.sum()) * self.bytes_per_expert,
        )

    def _on(self, gpus: tuple[int, ...], items: Ints) -> npt.NDArray[np.bool_]:
        """Whether the first slot of each item lies on one of the GPUs, [M]."""
        own_G = np.zeros(self.new_rows.shape[1] // self.slots_per_gpu, np.bool_)
        own_G[list(gpus)] = True
        return own_G[items[:, 1] // self.slots_per_gpu]


# Below, a layer is given by its index among the K layers that differ.


def _with_layer_numbers(items: npt.NDArray[np.int64], layers: npt.NDArray[np.intp]) -> Ints:
    """Replace the index of each item's layer by the number of the layer."""
    return np.column_stack([layers[items[:, 0]], items[:, 1:]]).astype(np.int32)


def _nearest_first(
    arrivals: npt.NDArray[np.int64], holders: npt.NDArray[np.int64], topology: Topology
) -> npt.NDArray[np.int64]:
    """`holders` [M, X], padded with -1, with each row sorted as `Differences.between` says."""
    per_node = topology.num_gpus // topology.num_nodes
    reads: Counter[tuple[int, int, int]] = Counter()
    sends: Counter[int] = Counter()
    ranked = holders.copy()
    rows = zip(arrivals.tolist(), holders.tolist(), strict=True)
    for i, ((layer, slot, expert), row) in enumerate(rows):
        if len(row) == 1 or row[1] < 0:
            # Most rows have one holder and need no sorting, so this saves time.
            sends[row[0]] += 1
            continue
        node = slot // topology.slots_per_gpu // per_node
        order = [
            gpu
            for *_, gpu in sorted(
                (gpu // per_node != node, reads[layer, expert, gpu], sends[gpu], gpu)
                for gpu in row
                if gpu >= 0
            )
        ]
        ranked[i, : len(order)] = order
        reads[layer, expert, order[0]] += 1
        sends[order[0]] += 1
    return ranked


def _sends(
    old_KR: Ints, arrivals: npt.NDArray[np.int64], sources: npt.NDArray[np.int64], slots: int
) -> npt.NDArray[np.int64]:
    """Layer, slot to read, slot to write and expert of each arrival, from its first source."""
    layer, slot, expert = arrivals.T
    # Without arrivals there may be no column, so `sum` replaces an index.
    gpu = sources[:, :1].sum(1)
    return np.column_stack([layer, _lowest(old_KR, layer, gpu, expert, slots), slot, expert])


def _copies(
    old_KR: Ints, new_KR: Ints, arrivals: npt.NDArray[np.int64], slots: int
) -> npt.NDArray[np.int64]:
    """Layer, slot to read, slot to write and expert of each slot that changes by a copy."""
    changed_KR = old_KR != new_KR
    changed_KR[arrivals[:, 0], arrivals[:, 1]] = False
    layer, slot = np.nonzero(changed_KR)
    expert, gpu = new_KR[layer, slot], slot // slots
    held = _lowest(old_KR, layer, gpu, expert, slots)
    received = _lowest(new_KR, layer, gpu, expert, slots)
    source = np.where(old_KR[layer, held] == expert, held, received)
    return np.column_stack([layer, source, slot, expert])


def _lowest(
    rows_KR: Ints,
    layer: npt.NDArray[np.int64],
    gpu: npt.NDArray[np.int64],
    expert: npt.NDArray[np.integer],
    slots: int,
) -> npt.NDArray[np.int64]:
    """The lowest slot of each GPU that holds the expert, [M]; the GPU's first slot if none does."""
    slots_MS = gpu[:, None] * slots + np.arange(slots)
    holds_MS = rows_KR[layer[:, None], slots_MS] == expert[:, None]
    lowest_M: npt.NDArray[np.int64] = slots_MS[:, 0] + holds_MS.argmax(1)
    return lowest_M
