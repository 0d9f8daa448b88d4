"""Relabel GPUs and slots of a full plan so that the fewest experts move."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from trimtab_server.domain.arrays import as_indices
from trimtab_server.domain.errors import require
from trimtab_server.domain.moves import presence
from trimtab_server.domain.topology import Topology


def align(new: Any, current: Any, num_gpus: int, *, num_nodes: int = 1) -> Tensor:
    """The placement `new` with its GPUs renamed to meet `current` best.

    GPUs are alike, so any renaming balances as well. The one with the fewest
    moves is an assignment problem, which SciPy solves exactly (the algorithm of
    Crouse, 2016). Experts that stay on a GPU keep their slot there.

    Args:
        new: int [L, R], the placement to reach.
        current: int [L, R], the placement in force.
        num_gpus: G; it divides R.
        num_nodes: N; it divides G. With more than 1, GPUs that share a node in
            `new` share one in the answer: nodes are assigned, then GPUs inside.
            Give 1 where an expert may lie on any node.

    Returns:
        int64 [L, R], on the device of `new`.

    Raises:
        InvalidArgumentError: an argument breaks a rule above.
    """
    new_LR, current_LR = as_indices(new, "new"), as_indices(current, "current")
    _check(new_LR, current_LR)
    Topology(new_LR.shape[1], num_gpus, num_nodes)
    # Numbered anew, so that memory follows the experts there are, not their names.
    names, both_2LR = torch.stack([new_LR, current_LR.to(new_LR.device)]).unique(
        return_inverse=True
    )
    new_LR, current_LR = both_2LR
    experts = len(names)
    held_LGE = presence(current_LR, experts, num_gpus).double()
    wanted_LGE = presence(new_LR, experts, num_gpus).double()
    overlap_LGG = torch.bmm(wanted_LGE, held_LGE.mT).cpu().numpy()
    target_LG = np.stack([_assign(overlap_GG, num_nodes) for overlap_GG in overlap_LGG])
    # target: new GPU -> its name. Its inverse says which new GPU to read from.
    source_LG = torch.from_numpy(np.argsort(target_LG, axis=1)).to(new_LR.device)
    new_LGS = new_LR.unflatten(1, (num_gpus, -1))
    renamed_LGS = new_LGS.gather(1, source_LG.unsqueeze(2).expand_as(new_LGS))
    aligned_LR: Tensor = names[keep_slots(renamed_LGS.flatten(1), current_LR, num_gpus)]
    return aligned_LR


def keep_slots(new_LR: Tensor, current_LR: Tensor, num_gpus: int) -> Tensor:
    """`new` with each GPU's slots reordered: experts that stay keep their slot.

    The others fill the remaining slots in the order they have in `new`.
    """
    new_LGS = new_LR.unflatten(1, (num_gpus, -1))
    current_LGS = current_LR.unflatten(1, (num_gpus, -1))
    # The k-th slot of an expert in `new` meets its k-th slot in `current`.
    match_LGSS = (new_LGS.unsqueeze(-1) == current_LGS.unsqueeze(-2)) & (
        _occurrence(new_LGS).unsqueeze(-1) == _occurrence(current_LGS).unsqueeze(-2)
    )
    stays_LGS, kept_LGS = match_LGSS.any(-1), match_LGSS.any(-2)
    item_LGS = torch.argsort(stays_LGS.to(torch.int8), dim=-1, stable=True)
    slot_LGS = torch.argsort(kept_LGS.to(torch.int8), dim=-1, stable=True)
    # Arrivals and free slots are equally many and come first in both orders.
    filled_LGS = torch.zeros_like(new_LGS).scatter_(2, slot_LGS, new_LGS.gather(2, item_LGS))
    return torch.where(kept_LGS, current_LGS, filled_LGS).flatten(1)


def _assign(overlap_GG: npt.NDArray[np.float64], num_nodes: int) -> npt.NDArray[np.int64]:
    """The name of each GPU of the new placement, [G]."""
    if num_nodes == 1:
        return np.asarray(linear_sum_assignment(overlap_GG, maximize=True)[1])
    per_node = len(overlap_GG) // num_nodes
    blocks_NNgg = overlap_GG.reshape(num_nodes, per_node, num_nodes, per_node).swapaxes(1, 2)
    inner = [[_assign(block, 1) for block in row] for row in blocks_NNgg]
    best_NN = [
        [block[np.arange(per_node), names].sum() for block, names in zip(*rows, strict=True)]
        for rows in zip(blocks_NNgg, inner, strict=True)
    ]
    node_N = _assign(np.array(best_NN), 1)
    return np.concatenate([node * per_node + inner[i][node] for i, node in enumerate(node_N)])


def _occurrence(expert_LGS: Tensor) -> Tensor:
    """How many earlier slots of the same GPU hold the same expert."""
    slots = expert_LGS.shape[-1]
    earlier_SS = torch.ones(slots, slots, dtype=torch.bool, device=expert_LGS.device).tril(-1)
    same_LGSS = expert_LGS.unsqueeze(-1) == expert_LGS.unsqueeze(-2)
    return (same_LGSS & earlier_SS).sum(-1)


def _check(new_LR: Tensor, current_LR: Tensor) -> None:
    require(
        new_LR.shape == current_LR.shape,
        "current",
        f"shape {tuple(current_LR.shape)} differs from new's {tuple(new_LR.shape)}",
    )
    for name, value_LR in (("new", new_LR), ("current", current_LR)):
        lowest = int(value_LR.min())
        require(lowest >= 0, name, f"{lowest} is not an expert")
