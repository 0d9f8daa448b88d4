"""An engine's rank over numpy weights: read it before you write an adapter.

It has what every rank has: weights in slots, staging beside them, the maps by which it
routes, and a transport to the other ranks. It computes by these maps and these weights, so a
wrong flip gives a wrong result, not just a wrong label.

Legend for all shapes: T tokens, H hidden size. A place is a layer and a slot of it, where
slots are numbered over all GPUs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Protocol

import numpy as np

from trimtab_client.placement import IntArray, Placement
from trimtab_client.worker.counters import slots_of
from trimtab_client.worker.offer import Flip, SwitchOffer
from trimtab_protocol.messages import Transfer
from trimtab_tools.conformance.adapter import FloatArray

Place = tuple[int, int]
Weights = Callable[[int, int], FloatArray]
ComputeElsewhere = Callable[[int, int, int, FloatArray], FloatArray]


class Transport(Protocol):
    """How weights come from the other ranks. All calls have to end, so use timeouts."""

    def read(self, gpu: int, layer: int, slot: int) -> FloatArray:
        """The live weights in a slot of another rank's GPU, [H, H].

        Raises:
            OSError: the rank cannot give them.
        """

    def exchange(self, sent: Mapping[Place, FloatArray]) -> Mapping[Place, FloatArray]:
        """Send weights to slots of any ranks; returns at least what is sent to this rank's slots.

        A collective: all ranks call it at the same step, also those that send nothing.
        """


class NumpyEngine:
    """One rank: an `EngineAdapter`, and a forward pass.

    It needs no lock, since the session keeps an order: transfer, then flip or abort, then
    the next transfer. Until the flip only staging is written, so this rank may compute with the
    slots, and other ranks may read them, at any time.

    Args:
        gpus: the GPUs that the rank owns.
        placement: the placement that it loads, and by which it routes at first.
        weights: the checkpoint: returns the weights of a layer and an expert, float32 [H, H].
        transport: to the other ranks.
        transfer: whether it pulls weights or exchanges them.
        staging_slots: number of expert weights for which the staging of each GPU has room.
    """

    def __init__(
        self,
        gpus: Sequence[int],
        placement: Placement,
        weights: Weights,
        transport: Transport,
        *,
        transfer: Transfer = Transfer.PULL,
        staging_slots: int = 1,
    ) -> None:
        self._gpus = tuple(gpus)
        self._maps = placement
        self._transport = transport
        self._transfer = transfer
        self._per_gpu = placement.phy2log.shape[1] // placement.num_gpus
        self._slots: dict[Place, FloatArray] = {
            (layer, slot): weights(layer, int(row_R[slot])).copy()
            for layer, row_R in enumerate(placement.phy2log)
            for slot in slots_of(gpus, placement).tolist()
        }
        buffer = next(iter(self._slots.values()))
        self._free = {gpu: [buffer.copy() for _ in range(staging_slots)] for gpu in gpus}
        self._staged: dict[Place, FloatArray] = {}
        self._reader = ThreadPoolExecutor(1, "trimtab-reader")

    # The session's thread; `on_offer` of a collective transfer: the engine's.

    def on_offer(self, offer: SwitchOffer) -> Future[Any] | None:
        """Fill staging: now and with all ranks, or on a thread while the engine serves."""
        if self._transfer is Transfer.COLLECTIVE:
            self._exchange(offer)
            return None
        return self._reader.submit(self._pull, offer)

    def on_abort(self, offer: SwitchOffer) -> None:
        """Free staging, which may be empty, or partly filled by a transfer that failed."""
        self._empty_staging()

    # The engine's thread.

    def flip(self, flip: Flip) -> None:
        """Fill the slots from staging and from each other, and route by the new maps."""
        for place, weights in self._incoming(flip.offer).items():
            self._slots[place][:] = weights
        self._maps = flip.placement
        self._empty_staging()

    def forward(
        self, layer: int, experts_T: IntArray, tokens_TH: FloatArray, elsewhere: ComputeElsewhere
    ) -> FloatArray:
        """Run each token through its expert, in the slot that this rank's maps name.

        `elsewhere` has the rank that owns another GPU compute, at the same step: its arguments
        are the GPU and those of `compute`. Tokens of one expert take turns at its replicas.
        """
        slots_T = np.array([self.route(layer, int(e), t) for t, e in enumerate(experts_T)])
        outputs_TH = np.empty_like(tokens_TH)
        for slot in np.unique(slots_T).tolist():
            gpu = slot // self._per_gpu
            compute = self.compute if gpu in self._gpus else partial(elsewhere, gpu)
            outputs_TH[slots_T == slot] = compute(layer, slot, tokens_TH[slots_T == slot])
        return outputs_TH

    def route(self, layer: int, expert: int, turn: int) -> int:
        """The slot that computes the `turn`-th token of an expert, by this rank's maps."""
        replica = turn % self._maps.logcnt[layer, expert]
        return int(self._maps.log2phy[layer, expert, replica])

    def compute(self, layer: int, slot: int, tokens: FloatArray) -> FloatArray:
        """Apply the weights in one of its own slots to tokens of any rank, [T, H] to [T, H]."""
        outputs_TH: FloatArray = tokens @ self._slots[layer, slot]
        return outputs_TH

    def phy2log(self) -> IntArray:
        """The expert of each slot by which it routes."""
        return self._maps.phy2log

    # Any thread.

    def weights_in(self, layer: int, slot: int) -> FloatArray:
        """The live weights in one of its own slots; raises ConnectionError once it is closed."""
        slots = self._slots
        if not slots:
            raise ConnectionError(f"the rank of GPUs {list(self._gpus)} is closed")
        return slots[layer, slot]

    def close(self) -> None:
        """Wait for the transfer that runs, if any, and free everything."""
        self._reader.shutdown(cancel_futures=True)
        self._slots = {}

    # Staging.

    def _pull(self, offer: SwitchOffer) -> None:
        rows = zip(offer.receives.tolist(), offer.receive_sources.tolist(), strict=True)
        for (layer, slot, expert), gpus in rows:
            holders = [gpu for gpu in gpus if gpu >= 0]
            self._stage((layer, slot), self._read(offer.base_placement, layer, expert, holders))

    def _read(self, base: Placement, layer: int, expert: int, holders: list[int]) -> FloatArray:
        """The weights of an expert, from the first of these GPUs that can give them."""
        for gpu in holders:
            held = base.log2phy[layer, expert].tolist()
            slot = next(slot for slot in held if slot // self._per_gpu == gpu)
            try:
                if gpu in self._gpus:
                    return self.weights_in(layer, slot)
                return self._transport.read(gpu, layer, slot)
            except OSError as error:
                failure = error
        raise failure

    def _exchange(self, offer: SwitchOffer) -> None:
        sent = {(la, to): self._slots[la, slot] for la, slot, to, _ in offer.sends.tolist()}
        received = self._transport.exchange(sent)
        for layer, slot, _ in offer.receives.tolist():
            self._stage((layer, slot), received[layer, slot])

    def _stage(self, place: Place, weights: FloatArray) -> None:
        buffer = self._staged[place] = self._free[place[1] // self._per_gpu].pop()
        buffer[:] = weights

    def _empty_staging(self) -> None:
        for (_, slot), buffer in self._staged.items():
            self._free[slot // self._per_gpu].append(buffer)
        self._staged.clear()

    def _incoming(self, offer: SwitchOffer) -> dict[Place, FloatArray]:
        """The new weights of each slot, all read before the first slot is written."""
        incoming = dict(self._staged)
        for layer, source, target, expert in offer.copies.tolist():
            in_force = offer.base_placement.phy2log[layer, source] == expert
            holds = self._slots if in_force else self._staged
            incoming[layer, target] = holds[layer, source].copy()
        return incoming
