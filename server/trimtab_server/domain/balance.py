"""How evenly a placement spreads a load: the definition used everywhere."""

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
        bound: float64 [L]: a lower bound on the imbalance of all placements of this topology;
            with router groups, of those that keep equally many groups on each node.
        moves: int64 [L]: experts new to a GPU, compared with `current`; 0 without it.
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
        """The evaluation with these values, and with moves counted for each layer."""
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
        """The same, but layers `layer_A` have the values of rows `row_A` of `other`."""

        def mixed(name: str) -> Tensor:
            values: Tensor = getattr(self, name).clone()
            values[layer_A] = getattr(other, name)[row_A]
            return values

        return Evaluation(**{name: mixed(name) for name in vars(self)})

    def of_layers(self, layer_A: npt.NDArray[np.int64]) -> Evaluation:
        """The evaluation of some layers, in their order."""
        return Evaluation(**{name: value[layer_A] for name, value in vars(self).items()})

    @property
    def loaded(self) -> Tensor:
        """Which layers have any load, bool [L]; balance means nothing for the others."""
        return self.gpu_load.amax(1) > 0

    @property
    def balancedness(self) -> Tensor:
        """1 / imbalance, float64 [L]."""
        return self.imbalance.reciprocal()


class OverLayers(NamedTuple):
    """The imbalance of many layers in three numbers, and the number of layers.

    Layers without load are left out, since they would count as balanced. An inference engine that
    numbers all layers has such layers: the dense ones.
    """

    worst: float
    median: float
    mean: float
    layers: int

    @classmethod
    def of(cls, gpu_load_LG: Tensor) -> OverLayers | None:
        """The imbalance of these loads; None if no layer has load."""
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
    """Sum over the last axis, by adding the second half to the first until one number is left.

    The order of addition is fixed, so every device and every backend computes the same last bit.
    If the number of terms is odd, the middle one stays for the next round.
    """
    while (width := value.shape[-1]) > 1:
        half = (width + 1) // 2
        folded = value[..., :half].clone()
        folded[..., : width - half] += value[..., half:]
        value = folded
    return value.sum(-1)
