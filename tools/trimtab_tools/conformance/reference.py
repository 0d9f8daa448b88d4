"""An engine's rank over numpy weights: the adapter to read before writing one.

It has what every rank has: weights in slots, staging beside them, the maps by which it
routes, and ways to the other ranks. What it computes goes through these maps to these
weights, so a wrong flip gives a wrong result, not just a wrong label.

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
from trimtab_client.worker.offer import Flip, SwitchOffer
from trimtab_client.worker.slots import slots_of
from trimtab_protocol.messages import Transfer
from trimtab_tools.conformance.adapter import FloatArray

Place = tuple[int, int]
Weights = Callable[[int, int], FloatArray]
Elsewhere = Callable[[int, int, int, FloatArray], FloatArray]


class Transport(Protocol):
    """How weights come from the other ranks. Whatever it does has to end: use timeouts."""

    def read(self, gpu: int, layer: int, slot: int) -> FloatArray:
        """The live weights in a slot of another rank's GPU, [H, H].

        Raises:
            OSError: they cannot be had from there.
        """

    def exchange(self, sent: Mapping[Place, FloatArray]) -> Mapping[Place, FloatArray]:
        """Send weights to slots of any ranks, and get at least what is sent to this one's.

        Collective: all ranks call it at the same step, also those that send nothing.
        """


class NumpyEngine:
    """One rank: an `EngineAdapter`, and a forward pass.

    No lock is needed, since the session keeps an order: transfer, then flip or abort, then
    the next transfer. Until the flip only staging is written, so the slots may be computed
    with, and read by other ranks, all the time.

    Args:
        gpus: the GPUs that it owns.
        placement: what it loads, and routes by at first.
        weights: the checkpoint: of a layer and an expert, float32 [H, H].
        transport: the ways to the other ranks.
        transfer: which of them it uses.
        staging_slots: expert weights that the staging of each GPU has room for.
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
        """Fill staging: at once with all ranks, or by itself while the engine serves."""
        if self._transfer is Transfer.COLLECTIVE:
            self._exchange(offer)
            return None
        return self._reader.submit(self._pull, offer)

    def on_abort(self, offer: SwitchOffer) -> None:
        """Free staging. It may be empty, or filled in part by a transfer that failed."""
        self._empty_staging()

    # The engine's thread.

    def flip(self, flip: Flip) -> None:
        """Fill the slots from staging and from each other, and route by the new maps."""
        for place, weights in self._incoming(flip.offer).items():
            self._slots[place][:] = weights
        self._maps = flip.placement
        self._empty_staging()

    def forward(
        self, layer: int, experts_T: IntArray, tokens_TH: FloatArray, elsewhere: Elsewhere
    ) -> FloatArray:
        """Run each token through its expert, wherever this rank's maps say that it lies.

        `elsewhere` has the owner of another GPU compute, at the same step: its arguments are
        the GPU and those of `compute`. Tokens of one expert take turns at its replicas.
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
        """What the weights in one of its own slots make of tokens [T, H], whoever asks."""
        outputs_TH: FloatArray = tokens @ self._slots[layer, slot]
        return outputs_TH

    def phy2log(self) -> IntArray:
        """The expert of each slot by which it routes."""
        return self._maps.phy2log

    # Any thread.

    def weights_in(self, layer: int, slot: int) -> FloatArray:
        """The live weights in an own slot, for others to read; ConnectionError once closed."""
        slots = self._slots
        if not slots:
            raise ConnectionError(f"the rank of GPUs {list(self._gpus)} is closed")
        return slots[layer, slot]

    def close(self) -> None:
        """Wait for a transfer that runs, and free everything."""
        self._reader.shutdown(cancel_futures=True)
        self._slots = {}

    # Staging.

    def _pull(self, offer: SwitchOffer) -> None:
        rows = zip(offer.receives.tolist(), offer.receive_sources.tolist(), strict=True)
        for (layer, slot, expert), gpus in rows:
            holders = [gpu for gpu in gpus if gpu >= 0]
            self._stage((layer, slot), self._read(offer.base_placement, layer, expert, holders))

    def _read(self, base: Placement, layer: int, expert: int, holders: list[int]) -> FloatArray:
        """The weights of an expert, from the first GPU of these from which they can be had."""
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
        """What comes into each slot. All is read before the first is written: see `copies`."""
        incoming = dict(self._staged)
        for layer, source, target, expert in offer.copies.tolist():
            in_force = offer.base_placement.phy2log[layer, source] == expert
            holds = self._slots if in_force else self._staged
            incoming[layer, target] = holds[layer, source].copy()
        return incoming
