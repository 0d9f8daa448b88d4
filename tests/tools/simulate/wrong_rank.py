"""A rank whose flips leave one slot as it was: the maps say one thing, the weights another."""

from __future__ import annotations

from trimtab_client.worker.offer import Flip
from trimtab_tools.conformance.reference import NumpyEngine
from trimtab_tools.simulate.rank import Rank, main


class ForgetfulEngine(NumpyEngine):
    def flip(self, flip: Flip) -> None:
        layer, slot = self._changing(flip)
        before = self.weights_in(layer, slot).copy()
        super().flip(flip)
        self.weights_in(layer, slot)[:] = before

    def _changing(self, flip: Flip) -> tuple[int, int]:
        """A slot of this rank that gets another expert, or its first slot."""
        offer, per_gpu = flip.offer, self._per_gpu
        changed_LR = offer.placement.phy2log != offer.base_placement.phy2log
        own_LR = changed_LR[:, self._gpus[0] * per_gpu : (self._gpus[0] + 1) * per_gpu]
        layer, slot = next(zip(*own_LR.nonzero(), strict=True), (0, 0))
        return int(layer), int(slot) + self._gpus[0] * per_gpu


class WrongRank(Rank):
    engine_type = ForgetfulEngine


if __name__ == "__main__":
    main(WrongRank)
