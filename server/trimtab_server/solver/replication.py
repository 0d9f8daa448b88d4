"""Replication: which experts get the slots beyond their first."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trimtab_server.domain.arrays import as_amounts
from trimtab_server.domain.errors import require, require_integers


def replicate_experts(
    weight: Any, num_replicas: int, *, max_replicas: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Give each expert a slot, and each further slot to the highest load per replica.

    This minimises the largest load per replica (DeepSeek's EPLB,
    `replicate_experts`). Ties go to the lowest expert.

    Args:
        weight: [X, E] of any real dtype, finite, >= 0.
        num_replicas: R >= E, slots of a row.
        max_replicas: most replicas of one expert, such as the GPUs it may lie
            on. Where R > E * max_replicas leaves no choice, it is R / E, rounded
            up.

    Returns:
        phy2log: int64 [X, R], the expert of each replica: first 0 … E - 1, then
            the further ones in the order they were given.
        rank: int64 [X, R], which replica of its expert it is, from 0.
        logcnt: int64 [X, E], replicas of each expert.

    Raises:
        InvalidArgumentError: an argument breaks a rule above.
    """
    weight_XE = as_amounts(weight, "weight")
    rows, experts = weight_XE.shape
    require_integers(num_replicas=num_replicas, max_replicas=max_replicas or 0)
    require(
        num_replicas >= experts,
        "num_replicas",
        f"{num_replicas} slots cannot hold {experts} experts",
    )
    require(max_replicas is None or max_replicas >= 1, "max_replicas", f"{max_replicas} is below 1")
    most = num_replicas if max_replicas is None else max(max_replicas, -(-num_replicas // experts))
    phy2log_XR = torch.arange(num_replicas, device=weight_XE.device).repeat(rows, 1)
    rank_XR = torch.zeros_like(phy2log_XR)
    logcnt_XE = torch.ones_like(weight_XE, dtype=torch.int64)
    row_X = torch.arange(rows, device=weight_XE.device)
    for slot in range(experts, num_replicas):
        share_XE = (weight_XE / logcnt_XE).masked_fill_(logcnt_XE >= most, -1)
        expert_X = share_XE.argmax(1)
        phy2log_XR[:, slot] = expert_X
        rank_XR[:, slot] = logcnt_XE[row_X, expert_X]
        logcnt_XE[row_X, expert_X] += 1
    return phy2log_XR, rank_XR, logcnt_XE
