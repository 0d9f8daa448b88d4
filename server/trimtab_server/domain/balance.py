"""How evenly a placement spreads a load: the one definition used everywhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trimtab_protocol.placement import Placement
from trimtab_server.domain.arrays import replica_counts, unthreaded
from trimtab_server.domain.moves import Moves
from trimtab_server.domain.placement import tensor_of


@dataclass(frozen=True)
class Evaluation:
    """Balance of a placement under a load.

    Attributes:
        gpu_load: float64 [L, G], in the unit of the load.
        imbalance: float64 [L]: heaviest GPU / mean GPU, >= 1; 1 without load.
        bound: float64 [L]: no placement of this topology has a lower imbalance; with router
            groups, none that keeps them on their nodes, as many on each.
        moves: int64 [L]: experts new to a GPU, against `current`; 0 without it.
        bytes_moved: int64 [L]: moves * bytes_per_expert.
    """

    gpu_load: Tensor
    imbalance: Tensor
    bound: Tensor
    moves: Tensor
    bytes_moved: Tensor

    @classmethod
    def of(
        cls,
        gpu_load_LG: Tensor,
        imbalance_L: Tensor,
        bound_L: Tensor,
        moves: Moves | None = None,
        bytes_per_expert: int = 0,
    ) -> Evaluation:
        """The evaluation, with moves counted for each layer."""
        layers = len(gpu_load_LG)
        if moves is None:
            moves_L = torch.from_numpy(np.zeros(layers, np.int64)).to(gpu_load_LG.device)
        else:
            moves_L = moves.per_layer(layers)
        bytes_L = torch.as_tensor(unthreaded(moves_L) * bytes_per_expert)
        return cls(gpu_load_LG, imbalance_L, bound_L, moves_L, bytes_L)

    def with_layers(
        self, layer_A: npt.NDArray[np.int64], other: Evaluation, row_A: npt.NDArray[np.int64]
    ) -> Evaluation:
        """The same, but in layers `layer_A` what `other` says of `row_A`."""

        def mixed(name: str) -> Tensor:
            values: Tensor = getattr(self, name).clone()
            values[layer_A] = getattr(other, name)[row_A]
            return values

        return Evaluation(**{name: mixed(name) for name in vars(self)})

    def of_layers(self, layer_A: npt.NDArray[np.int64]) -> Evaluation:
        """Of some layers, in their order."""
        return Evaluation(**{name: value[layer_A] for name, value in vars(self).items()})

    @property
    def loaded(self) -> Tensor:
        """Which layers have any load, bool [L]: of the others there is nothing to say."""
        return self.gpu_load.amax(1) > 0

    @property
    def balancedness(self) -> Tensor:
        """1 / imbalance, float64 [L]."""
        return self.imbalance.reciprocal()


class OverLayers(NamedTuple):
    """An imbalance of many layers in three numbers, and how many layers these are of.

    Layers without load are none of them: they would count as balanced. Dense layers are such,
    where an engine numbers all.
    """

    worst: float
    median: float
    mean: float
    layers: int

    @classmethod
    def of(cls, gpu_load_LG: Tensor) -> OverLayers | None:
        """Heaviest GPU / mean GPU, of these loads; None: no layer has any."""
        loaded_LG = gpu_load_LG[gpu_load_LG.amax(1) > 0]
        if not len(loaded_LG):
            return None
        ratio_L = imbalance(loaded_LG)
        numbers = float(ratio_L.max()), float(ratio_L.median()), float(ratio_L.mean())
        return cls(*numbers, len(ratio_L))


def gpu_loads(phy2log_LR: Tensor, load_LE: Tensor, num_gpus: int) -> Tensor:
    """Load of each GPU, float64 [L, G]."""
    share_LE = load_LE / replica_counts(phy2log_LR, load_LE.shape[1])
    return fold_sum(share_LE.gather(1, phy2log_LR).unflatten(1, (num_gpus, -1)))


def loads_with(placement: Placement, load_LE: npt.NDArray[np.float64]) -> Tensor:
    """Load of each GPU with a placement, float64 [L, G]."""
    return gpu_loads(tensor_of(placement), torch.from_numpy(load_LE), placement.num_gpus)


def imbalance(gpu_load_LG: Tensor) -> Tensor:
    """Heaviest GPU / mean GPU of each layer, float64 [L]; 1 without load."""
    mean_L = fold_sum(gpu_load_LG) / gpu_load_LG.shape[1]
    ratio_L = gpu_load_LG.amax(1) / mean_L
    return torch.where(mean_L > 0, ratio_L, 1.0).clamp(min=1.0)


def fold_sum(value: Tensor) -> Tensor:
    """Sum over the last axis: the second half is added to the first until one is left.

    The order is fixed, and so is the last bit, on every device and in every
    backend; where the number is odd, the one in the middle waits.
    """
    while (width := value.shape[-1]) > 1:
        half = (width + 1) // 2
        folded = value[..., :half].clone()
        folded[..., : width - half] += value[..., half:]
        value = folded
    return value.sum(-1)
