"""`replicate_experts` for one row."""

from __future__ import annotations

from trimtab_server.solver.backends.cpu.arrays import Floats, Int64s
from trimtab_server.solver.backends.cpu.compiled import compiled

_BLOCK = 16
"""Experts in a block, whose largest share is stored, so that a slot costs two short scans."""


@compiled
def replicate(
    load_E: Floats,
    limit: int,
    expert_R: Int64s,
    rank_R: Int64s,
    logcnt_E: Int64s,
    share_E: Floats,
    open_E: Floats,
    top_B: Floats,
) -> None:
    """Give each further slot to the expert with the highest load per replica.

    Args:
        load_E: float64 [E], finite, >= 0.
        limit: replicas allowed for one expert; E * limit >= R.
        expert_R: int64 [R], written: the expert of each replica.
        rank_R: int64 [R], written: the index of each replica among those of its expert.
        logcnt_E: int64 [E], written: replicas of each expert.
        share_E: float64 [E], written: load of each replica of an expert.
        open_E: float64 [E], scratch.
        top_B: float64 [num_blocks(E)], scratch.
    """
    # An expert at its limit competes with a share below all others.
    experts, capped = len(load_E), -1.0
    for e in range(experts):
        expert_R[e], rank_R[e], logcnt_E[e] = e, 0, 1
        share_E[e] = load_E[e]
        open_E[e] = load_E[e] if limit > 1 else capped
    for b in range(len(top_B)):
        top_B[b] = _highest(open_E, b)
    for r in range(experts, len(expert_R)):
        block = 0
        for b in range(1, len(top_B)):
            if top_B[b] > top_B[block]:
                block = b
        e = block * _BLOCK
        while open_E[e] != top_B[block]:
            e += 1
        expert_R[r], rank_R[r] = e, logcnt_E[e]
        logcnt_E[e] += 1
        share_E[e] = load_E[e] / logcnt_E[e]
        open_E[e] = share_E[e] if logcnt_E[e] < limit else capped
        top_B[block] = _highest(open_E, block)


@compiled
def num_blocks(num_experts: int) -> int:
    """The number of blocks of experts."""
    return (num_experts + _BLOCK - 1) // _BLOCK


@compiled
def _highest(open_E: Floats, block: int) -> float:
    highest = open_E[block * _BLOCK]
    for e in range(block * _BLOCK + 1, min(len(open_E), (block + 1) * _BLOCK)):
        highest = max(highest, open_E[e])
    return highest
