"""How evenly a placement spreads a load: the one definition used everywhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trimtab_server.domain.arrays import as_amounts, check_phy2log, replica_counts
from trimtab_server.domain.errors import require, require_integers
from trimtab_server.domain.moves import Moves, moves_between


@dataclass(frozen=True)
class Evaluation:
    """Balance of a placement under a load.

    Attributes:
        gpu_load: float64 [L, G], in the unit of the load.
        imbalance: float64 [L]: heaviest GPU / mean GPU, >= 1; 1 without load.
        moves: int64 [L]: experts new to a GPU, against `current`; 0 without it.
        bytes_moved: int64 [L]: moves * bytes_per_expert.
    """

    gpu_load: Tensor
    imbalance: Tensor
    moves: Tensor
    bytes_moved: Tensor

    @property
    def balancedness(self) -> Tensor:
        """1 / imbalance, float64 [L]."""
        return self.imbalance.reciprocal()


def evaluate(
    phy2log: Any,
    load: Any,
    num_gpus: int,
    *,
    current: Any = None,
    bytes_per_expert: int = 0,
) -> Evaluation:
    """Evaluate a placement, with an expert's load divided evenly over its replicas.

    Args:
        phy2log: int [L, R], the expert in each slot.
        load: [L, E], tokens of each expert; finite, >= 0.
        num_gpus: G; it divides R.
        current: int [L, R], the placement that moves are counted from.
        bytes_per_expert: weight bytes of one expert in one layer.

    Raises:
        InvalidArgumentError: an argument breaks a rule above.
    """
    load_LE = as_amounts(load, "load")
    phy2log_LR = _placement_of(phy2log, "phy2log", load_LE).to(load_LE.device)
    require_integers(num_gpus=num_gpus, bytes_per_expert=bytes_per_expert)
    require(num_gpus >= 1, "num_gpus", f"{num_gpus} is below 1")
    require(
        phy2log_LR.shape[1] % num_gpus == 0,
        "num_gpus",
        f"{num_gpus} does not divide the number of slots ({phy2log_LR.shape[1]})",
    )
    require(bytes_per_expert >= 0, "bytes_per_expert", f"{bytes_per_expert} is negative")
    if current is None:
        return evaluate_checked(phy2log_LR, load_LE, num_gpus)
    current_LR = _placement_of(current, "current", load_LE).to(load_LE.device)
    require(
        current_LR.shape == phy2log_LR.shape,
        "current",
        f"shape {tuple(current_LR.shape)} differs from phy2log's {tuple(phy2log_LR.shape)}",
    )
    moves = moves_between(current_LR, phy2log_LR, load_LE.shape[1], num_gpus)
    return evaluate_checked(phy2log_LR, load_LE, num_gpus, moves, bytes_per_expert)


def evaluate_checked(
    phy2log_LR: Tensor,
    load_LE: Tensor,
    num_gpus: int,
    moves: Moves | None = None,
    bytes_per_expert: int = 0,
) -> Evaluation:
    """`evaluate` on checked values, for a caller that has the moves already."""
    gpu_load_LG = gpu_loads(phy2log_LR, load_LE, num_gpus)
    layers = len(load_LE)
    moves_L = torch.zeros(layers, dtype=torch.int64, device=load_LE.device)
    if moves is not None:
        moves_L = moves.per_layer(layers)
    return Evaluation(gpu_load_LG, imbalance(gpu_load_LG), moves_L, moves_L * bytes_per_expert)


def gpu_loads(phy2log_LR: Tensor, load_LE: Tensor, num_gpus: int) -> Tensor:
    """Load of each GPU, float64 [L, G]."""
    share_LE = load_LE / replica_counts(phy2log_LR, load_LE.shape[1])
    load_LGS: Tensor = share_LE.gather(1, phy2log_LR).unflatten(1, (num_gpus, -1))
    return load_LGS.sum(-1)


def imbalance(gpu_load_LG: Tensor) -> Tensor:
    """Heaviest GPU / mean GPU of each layer, float64 [L]; 1 without load."""
    mean_L = gpu_load_LG.mean(1)
    ratio_L = gpu_load_LG.amax(1) / mean_L
    return torch.where(mean_L > 0, ratio_L, 1.0).clamp(min=1.0)


def _placement_of(phy2log: Any, name: str, load_LE: Tensor) -> Tensor:
    phy2log_LR = check_phy2log(phy2log, name, load_LE.shape[1])
    require(
        phy2log_LR.shape[0] == load_LE.shape[0],
        name,
        f"has {phy2log_LR.shape[0]} layers where load has {load_LE.shape[0]}",
    )
    return phy2log_LR
