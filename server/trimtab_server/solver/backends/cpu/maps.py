"""The maps of a placement from experts to slots, like the reference's `slot_maps`."""

from __future__ import annotations

import numpy as np

from trimtab_server.solver.backends.cpu.arrays import Int64s
from trimtab_server.solver.backends.cpu.compiled import entry


@entry
def slot_maps(phy2log_LR: Int64s, num_experts: int) -> tuple[Int64s, Int64s]:
    """`log2phy` [L, E, X], padded with -1, and `logcnt` [L, E]."""
    layers, replicas = phy2log_LR.shape
    logcnt_LE = np.zeros((layers, num_experts), np.int64)
    width = np.int64(0)
    for x in range(layers):
        for r in range(replicas):
            logcnt_LE[x, phy2log_LR[x, r]] += 1
        for e in range(num_experts):
            width = max(width, logcnt_LE[x, e])
    log2phy_LEX = np.full((layers, num_experts, width), -1)
    rank_E = np.empty(num_experts, np.int64)
    for x in range(layers):
        for e in range(num_experts):
            rank_E[e] = 0
        for r in range(replicas):
            e = phy2log_LR[x, r]
            log2phy_LEX[x, e, rank_E[e]] = r
            rank_E[e] += 1
    return log2phy_LEX, logcnt_LE
