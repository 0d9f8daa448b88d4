"""Engines with one mistake each, of the kind that real engines have."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any

from trimtab_client import Flip, Placement, SwitchOffer
from trimtab_protocol.messages import Transfer
from trimtab_tools.conformance.inprocess import InProcess
from trimtab_tools.conformance.reference import NumpyEngine

PATIENCE = 60


class WritesLiveSlots(NumpyEngine):
    """Has no staging: writes what it receives to the slots at once."""

    def _stage(self, place: tuple[int, int], weights: Any) -> None:
        super()._stage(place, weights)
        self._slots[place][:] = weights


class CopiesInOrder(NumpyEngine):
    """Writes what it has received, and then copies slot after slot."""

    def _incoming(self, offer: SwitchOffer) -> Any:
        for place, weights in self._staged.items():
            self._slots[place][:] = weights
        for layer, source, target, _ in offer.copies.tolist():
            self._slots[layer, target][:] = self._slots[layer, source]
        return {}


class ForgetsCopies(NumpyEngine):
    def _incoming(self, offer: SwitchOffer) -> Any:
        return self._staged


def with_copies(engine: NumpyEngine, offer: SwitchOffer, read: Any) -> Any:
    """What is staged, and for each copy what `read` holds in its source."""
    rows = offer.copies.tolist()
    return engine._staged | {(la, to): read[la, source].copy() for la, source, to, _ in rows}


class CopiesOnlyWhatIsInForce(NumpyEngine):
    """Ignores that a copy may read an expert that has just been received."""

    def _incoming(self, offer: SwitchOffer) -> Any:
        return with_copies(self, offer, self._slots)


class CopiesWhatIsReceived(NumpyEngine):
    """Reads staging for each copy from a slot that receives."""

    def _incoming(self, offer: SwitchOffer) -> Any:
        return with_copies(self, offer, self._slots | self._staged)


class ReadsEachSlotOnce(NumpyEngine):
    """Reads the same expert for all copies from a slot."""

    def _incoming(self, offer: SwitchOffer) -> Any:
        incoming = super()._incoming(offer)
        first: dict[Any, Any] = {}
        for layer, source, target, _ in offer.copies.tolist():
            incoming[layer, target] = first.setdefault((layer, source), incoming[layer, target])
        return incoming


class ForgetsTheLastLayersMaps(NumpyEngine):
    def flip(self, flip: Flip) -> None:
        before = self._maps
        super().flip(flip)
        rows = flip.placement.phy2log.copy()
        rows[-1] = before.phy2log[-1]
        self._maps = Placement.of(rows, before.num_experts, before.num_gpus)


class TakesRowsForLayers(NumpyEngine):
    """Takes row k of an offer for layer k, instead of for `layers[k]`."""

    def flip(self, flip: Flip) -> None:
        before = self._maps
        super().flip(flip)
        rows = before.phy2log.copy()
        rows[: len(flip.layers)] = flip.offer.new_rows
        self._maps = Placement.of(rows, before.num_experts, before.num_gpus)


class MapsWithoutWeights(NumpyEngine):
    def _incoming(self, offer: SwitchOffer) -> Any:
        return {}


class WeightsWithoutMaps(NumpyEngine):
    def flip(self, flip: Flip) -> None:
        before = self._maps
        super().flip(flip)
        self._maps = before


class FlipsOnlyWhereSomethingArrives(NumpyEngine):
    def flip(self, flip: Flip) -> None:
        if len(flip.offer.receives) or len(flip.offer.copies):
            super().flip(flip)


class AbortKeepsStaging(NumpyEngine):
    def on_abort(self, offer: SwitchOffer) -> None:
        self._staged.clear()


class FlipKeepsStaging(NumpyEngine):
    def flip(self, flip: Flip) -> None:
        self._empty_staging = self._staged.clear  # type: ignore[method-assign]
        super().flip(flip)


class RemembersAborted(NumpyEngine):
    """Keeps a copy of what it has received for an aborted offer."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.left: dict[Any, Any] = {}

    def on_abort(self, offer: SwitchOffer) -> None:
        self.left = {place: weights.copy() for place, weights in self._staged.items()}
        super().on_abort(offer)


class FlipsToLeftovers(RemembersAborted):
    """Frees staging after an abort, and still writes its content at the next flip."""

    def _incoming(self, offer: SwitchOffer) -> Any:
        return self.left | super()._incoming(offer)


class ReceivesOnce(RemembersAborted):
    """Uses what it has received for an aborted offer instead of what it receives later."""

    def _stage(self, place: tuple[int, int], weights: Any) -> None:
        super()._stage(place, self.left.get(place, weights))


class ReadsTheFirstSlot(NumpyEngine):
    """Reads from the right GPU, but always from its first slot."""

    def _read(self, base: Placement, layer: int, expert: int, holders: list[int]) -> Any:
        gpu = holders[0]
        if gpu in self._gpus:
            return self.weights_in(layer, gpu * self._per_gpu)
        return self._transport.read(gpu, layer, gpu * self._per_gpu)


class SaysPreparedAnyway(NumpyEngine):
    def on_offer(self, offer: SwitchOffer) -> Any:
        transfer: Future[bool] = Future()
        self._reader.submit(self._pull, offer).add_done_callback(
            lambda _: transfer.set_result(True)
        )
        return transfer


class PullsAtTheFlip(NumpyEngine):
    """Pulls when others may have flipped already."""

    def on_offer(self, offer: SwitchOffer) -> Any:
        return True

    def flip(self, flip: Flip) -> None:
        self._pull(flip.offer)
        super().flip(flip)


class Blocking(NumpyEngine):
    """Has an event to wait for, which `close` sets."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.released = threading.Event()

    def close(self) -> None:
        self.released.set()
        super().close()


class BlocksInOnOffer(Blocking):
    """Blocks until the flip."""

    def on_offer(self, offer: SwitchOffer) -> Any:
        self._pull(offer)
        self.released.wait(PATIENCE)

    def flip(self, flip: Flip) -> None:
        self.released.set()
        super().flip(flip)


class NeverEndsATransfer(Blocking):
    def on_offer(self, offer: SwitchOffer) -> Any:
        return self._reader.submit(self.released.wait, PATIENCE)


class StopsWhileItPrepares(Blocking):
    """Computes nothing after an offer."""

    def on_offer(self, offer: SwitchOffer) -> Any:
        self.busy = True
        return super().on_offer(offer)

    def compute(self, layer: int, slot: int, tokens: Any) -> Any:
        if getattr(self, "busy", False):
            self.released.wait(PATIENCE)
        return super().compute(layer, slot, tokens)


class BlocksInClose(NumpyEngine):
    def close(self) -> None:
        super().close()
        threading.Event().wait(PATIENCE)


class PullsTogether(Blocking):
    """Waits for the other ranks in a pull."""

    def _pull(self, offer: SwitchOffer) -> None:
        transport = self._transport
        assert isinstance(transport, InProcess)
        if len({id(rank) for rank in transport.owners.values()}) > 1:
            self.released.wait(PATIENCE)
        super()._pull(offer)


class SendsNothing(NumpyEngine):
    def _exchange(self, offer: SwitchOffer) -> None:
        self._transport.exchange({})
        for place in map(tuple, offer.receives[:, :2].tolist()):
            self._stage(place, self._slots[place])


class SendsToItsOwnSlots(NumpyEngine):
    """Sends to the slot that it sends from."""

    def _exchange(self, offer: SwitchOffer) -> None:
        sends = offer.sends.tolist()
        self._transport.exchange({(la, slot): self._slots[la, slot] for la, slot, *_ in sends})
        received = {(la, to): self._slots[la, slot] for la, slot, to, _ in sends}
        for layer, slot, _ in offer.receives.tolist():
            self._stage((layer, slot), received.get((layer, slot), self._slots[layer, slot]))


class StaysAwayIfIdle(NumpyEngine):
    """Does not join an exchange if it has nothing to send or receive."""

    def _exchange(self, offer: SwitchOffer) -> None:
        if len(offer.receives) or len(offer.sends):
            super()._exchange(offer)


class KnowsOneGpu(NumpyEngine):
    """Takes all slots for those of its first GPU."""

    def _incoming(self, offer: SwitchOffer) -> Any:
        first = self._gpus[0] * self._per_gpu
        incoming = super()._incoming(offer).items()
        return {(la, first + slot % self._per_gpu): weights for (la, slot), weights in incoming}


class SharesItsMaps(NumpyEngine):
    """Keeps the maps of all ranks in one variable of the process."""

    def flip(self, flip: Flip) -> None:
        super().flip(flip)
        assert isinstance(self._transport, InProcess)
        for rank in self._transport.owners.values():
            rank._maps = self._maps


class AbortsOnlyWhatItKnows(NumpyEngine):
    def on_abort(self, offer: SwitchOffer) -> None:
        for place in map(tuple, offer.receives[:, :2].tolist()):
            self._free[place[1] // self._per_gpu].append(self._staged.pop(place))


class LoadsTheDefault(NumpyEngine):
    """Loads the same placement whatever it is told."""

    def __init__(self, gpus: Any, placement: Placement, *rest: Any, **options: Any) -> None:
        layers, slots = placement.phy2log.shape
        experts = placement.num_experts
        default = Placement.untouched(layers, experts, slots, placement.num_gpus)
        super().__init__(gpus, default, *rest, **options)
        self._maps = placement


class LoadsAnything(NumpyEngine):
    """Loads other weights for an expert in each group."""

    def __init__(self, gpus: Any, placement: Placement, weights: Any, *rest: Any, **options: Any):
        turn = placement.digest[0]

        def turned(layer: int, expert: int) -> Any:
            return weights(layer, (expert + turn) % placement.num_experts)

        super().__init__(gpus, placement, turned, *rest, **options)


class KeepsItsThread(NumpyEngine):
    kept: list[Any] = []  # noqa: RUF012

    def close(self) -> None:
        self.kept.append(self._reader)
        self._slots = {}


class CannotCompute(NumpyEngine):
    def compute(self, layer: int, slot: int, tokens: Any) -> Any:
        raise OverflowError("too hot")


class ComputesHalf(NumpyEngine):
    def compute(self, layer: int, slot: int, tokens: Any) -> Any:
        return super().compute(layer, slot, tokens)[:-1]


class ComputesAlike(NumpyEngine):
    def compute(self, layer: int, slot: int, tokens: Any) -> Any:
        return tokens


class Declines(NumpyEngine):
    def on_offer(self, offer: SwitchOffer) -> Any:
        return False


class FailsInFlip(NumpyEngine):
    def flip(self, flip: Flip) -> None:
        raise OSError("the device is gone")


class ShowsOwnSlotsOnly(NumpyEngine):
    def phy2log(self) -> Any:
        return self._maps.phy2log[:, sorted({slot for _, slot in self._slots})]


class CollectiveFails(NumpyEngine):
    """One rank fails before the exchange, and leaves the others in it."""

    def _exchange(self, offer: SwitchOffer) -> None:
        if self._gpus[0] == 1 and self._transfer is Transfer.COLLECTIVE:
            raise OSError("no memory")
        super()._exchange(offer)
