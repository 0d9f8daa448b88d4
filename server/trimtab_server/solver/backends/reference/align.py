"""Renames GPUs and slots so that the fewest experts move."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from trimtab_server.domain.moves import presence
from trimtab_server.solver.assignment import assign


def align(
    new_LR: Tensor, current_LR: Tensor, num_experts: int, num_gpus: int, num_nodes: int
) -> Tensor:
    """`new` with its GPUs and slots renamed to differ least from `current`, int64 [L, R].

    Args:
        new_LR: int64, in [0, num_experts).
        current_LR: int64, in [0, num_experts).
        num_experts: E.
        num_gpus: G; it divides R.
        num_nodes: N; it divides G. GPUs of one node stay on one node.
    """
    held_LGE = presence(current_LR, num_experts, num_gpus).double()
    wanted_LGE = presence(new_LR, num_experts, num_gpus).double()
    overlap_LGG = torch.bmm(wanted_LGE, held_LGE.mT).cpu().numpy()
    target_LG = np.stack([assign(overlap_GG, num_nodes) for overlap_GG in overlap_LGG])
    # target: new GPU -> its name. The inverse maps a name to the new GPU that is read.
    source_LG = torch.from_numpy(np.argsort(target_LG, axis=1)).to(new_LR.device)
    new_LGS = new_LR.unflatten(1, (num_gpus, -1))
    renamed_LGS = new_LGS.gather(1, source_LG.unsqueeze(2).expand_as(new_LGS))
    return keep_slots(renamed_LGS.flatten(1), current_LR, num_gpus)


def keep_slots(new_LR: Tensor, current_LR: Tensor, num_gpus: int) -> Tensor:
    """`new` with each GPU's slots reordered: experts that stay keep their slot.

    The others fill the remaining slots in the order that they have in `new`.
    """
    new_LGS = new_LR.unflatten(1, (num_gpus, -1))
    current_LGS = current_LR.unflatten(1, (num_gpus, -1))
    # The k-th slot of an expert in `new` matches its k-th slot in `current`.
    match_LGSS = (new_LGS.unsqueeze(-1) == current_LGS.unsqueeze(-2)) & (
        _occurrence(new_LGS).unsqueeze(-1) == _occurrence(current_LGS).unsqueeze(-2)
    )
    stays_LGS, kept_LGS = match_LGSS.any(-1), match_LGSS.any(-2)
    item_LGS = torch.argsort(stays_LGS.to(torch.int8), dim=-1, stable=True)
    slot_LGS = torch.argsort(kept_LGS.to(torch.int8), dim=-1, stable=True)
    # There are as many arrivals as free slots, and both come first in their order.
    filled_LGS = torch.zeros_like(new_LGS).scatter_(2, slot_LGS, new_LGS.gather(2, item_LGS))
    return torch.where(kept_LGS, current_LGS, filled_LGS).flatten(1)


def _occurrence(expert_LGS: Tensor) -> Tensor:
    """How many earlier slots of the same GPU hold the same expert."""
    slots = expert_LGS.shape[-1]
    earlier_SS = torch.ones(slots, slots, dtype=torch.bool, device=expert_LGS.device).tril(-1)
    same_LGSS = expert_LGS.unsqueeze(-1) == expert_LGS.unsqueeze(-2)
    return (same_LGSS & earlier_SS).sum(-1)
