"""The expert weights to copy between two placements."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trimtab_server.domain.arrays import unthreaded


@dataclass(frozen=True)
class Moves:
    """Expert weights to copy: one row for each expert new to a GPU.

    Attributes:
        layer_slot_expert: int64 [M, 3], ascending by (layer, slot); the slot is
            the destination.
        source_gpus: int64 [M, X], padded with -1: the GPUs that held the expert
            before, ascending.
    """

    layer_slot_expert: Tensor
    source_gpus: Tensor

    @classmethod
    def none(cls) -> Moves:
        """Nothing to copy."""
        return cls(*(torch.from_numpy(np.zeros((0, each), np.int64)) for each in (3, 0)))

    def __len__(self) -> int:
        return int(self.layer_slot_expert.shape[0])

    def per_layer(self, num_layers: int) -> Tensor:
        """Moves of each layer, int64 [L]."""
        layer_M = unthreaded(self.layer_slot_expert[:, 0])
        if isinstance(layer_M, Tensor):
            return torch.bincount(layer_M, minlength=num_layers)
        return torch.from_numpy(np.bincount(layer_M, minlength=num_layers))

    def with_layers(
        self, layer_A: npt.NDArray[np.int64], other: Moves, row_A: npt.NDArray[np.int64]
    ) -> Moves:
        """These moves, with those of layers `layer_A` replaced by layers `row_A` of `other`."""
        ours_M3, theirs_M3 = self.layer_slot_expert.numpy(), other.layer_slot_expert.numpy()
        stay_M = ~np.isin(ours_M3[:, 0], layer_A)
        come_M = np.isin(theirs_M3[:, 0], row_A)
        theirs_M3 = theirs_M3[come_M]
        theirs_M3[:, 0] = layer_A[np.searchsorted(row_A, theirs_M3[:, 0])]
        both_M3 = np.concatenate([ours_M3[stay_M], theirs_M3])
        sources = self.source_gpus.numpy()[stay_M], other.source_gpus.numpy()[come_M]
        width = max(part.shape[1] for part in sources)
        padded = [
            np.pad(part, ((0, 0), (0, width - part.shape[1])), constant_values=-1)
            for part in sources
        ]
        order_M = np.lexsort((both_M3[:, 1], both_M3[:, 0]))
        return Moves(
            torch.from_numpy(both_M3[order_M]), torch.from_numpy(np.concatenate(padded)[order_M])
        )


def presence(phy2log_LR: Tensor, num_experts: int, num_gpus: int) -> Tensor:
    """Whether each GPU holds each expert, bool [L, G, E]."""
    phy2log_LGS = phy2log_LR.unflatten(1, (num_gpus, -1))
    shape = *phy2log_LGS.shape[:2], num_experts
    experts = unthreaded(phy2log_LGS)
    if isinstance(experts, Tensor):
        held_LGE = torch.zeros(shape, dtype=torch.bool, device=experts.device)
        return held_LGE.scatter_(2, experts, True)
    held = np.zeros(shape, np.bool_)
    np.put_along_axis(held, experts, True, 2)
    return torch.from_numpy(held)


def moves_between(current_LR: Tensor, new_LR: Tensor, num_experts: int, num_gpus: int) -> Moves:
    """The moves from `current` to `new`, both int64 [L, R].

    An expert that gets two slots on a GPU that did not hold it is one move, since the
    second slot is filled by a local copy.
    """
    held_LGE = presence(current_LR, num_experts, num_gpus)
    new_LGS = new_LR.unflatten(1, (num_gpus, -1))
    arrives_LGS = ~held_LGE.gather(2, new_LGS) & ~_repeats_earlier(new_LGS)
    layer, slot = torch.nonzero(arrives_LGS.flatten(1), as_tuple=True)
    expert = new_LR[layer, slot]
    return Moves(torch.stack([layer, slot, expert], 1), _sources(held_LGE[layer, :, expert]))


def _repeats_earlier(new_LGS: Tensor) -> Tensor:
    """Whether a slot repeats the expert of an earlier slot of the same GPU."""
    slots = new_LGS.shape[-1]
    earlier_SS = torch.ones(slots, slots, dtype=torch.bool, device=new_LGS.device).tril(-1)
    return ((new_LGS.unsqueeze(-1) == new_LGS.unsqueeze(-2)) & earlier_SS).any(-1)


def _sources(held_MG: Tensor) -> Tensor:
    """The indices of the True columns of each row, ascending, padded with -1."""
    width = int(held_MG.sum(1).max()) if held_MG.numel() else 0
    order_MG = torch.argsort((~held_MG).to(torch.int8), dim=1, stable=True)
    return torch.where(held_MG.gather(1, order_MG), order_MG, -1)[:, :width]
