"""The maps of a placement from experts to slots."""

from __future__ import annotations

import torch
from torch import Tensor

from trimtab_server.domain.arrays import replica_counts


def slot_maps(phy2log_LR: Tensor, num_experts: int) -> tuple[Tensor, Tensor]:
    """`log2phy` [L, E, X], padded with -1, and `logcnt` [L, E] of a placement, int64."""
    layers, slots = phy2log_LR.shape
    logcnt_LE = replica_counts(phy2log_LR, num_experts)
    order_LR = torch.argsort(phy2log_LR, dim=1, stable=True)
    expert_LR = phy2log_LR.gather(1, order_LR)
    first_LE = logcnt_LE.cumsum(1) - logcnt_LE
    rank_LR = torch.arange(slots, device=phy2log_LR.device) - first_LE.gather(1, expert_LR)
    width = int(logcnt_LE.max())
    log2phy_LE = phy2log_LR.new_full((layers, num_experts * width), -1)
    log2phy_LE.scatter_(1, expert_LR * width + rank_LR, order_LR)
    return log2phy_LE.unflatten(1, (num_experts, width)), logcnt_LE
