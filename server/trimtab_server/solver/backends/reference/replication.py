"""`replicate_experts` for all rows at once, one slot at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from trimtab_server.solver.backends.backend import Replicas


def replicate(load_XE: Tensor, num_replicas: int, limit: int) -> Replicas:
    """Give each further slot to the expert with the highest load per replica.

    Args:
        load_XE: float64 [X, E], finite, >= 0.
        num_replicas: R >= E.
        limit: replicas allowed for one expert; E * limit >= R.
    """
    rows, experts = load_XE.shape
    phy2log_XR = torch.arange(num_replicas, device=load_XE.device).repeat(rows, 1)
    rank_XR = torch.zeros_like(phy2log_XR)
    logcnt_XE = torch.ones_like(load_XE, dtype=torch.int64)
    row_X = torch.arange(rows, device=load_XE.device)
    for slot in range(experts, num_replicas):
        share_XE = (load_XE / logcnt_XE).masked_fill_(logcnt_XE >= limit, -1)
        expert_X = share_XE.argmax(1)
        phy2log_XR[:, slot] = expert_X
        rank_XR[:, slot] = logcnt_XE[row_X, expert_X]
        logcnt_XE[row_X, expert_X] += 1
    return Replicas(phy2log_XR, rank_XR, logcnt_XE)
