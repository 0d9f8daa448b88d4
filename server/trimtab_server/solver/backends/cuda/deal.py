"""LPT with capacity: each start's items, in order, to the lightest pack with room."""
# mypy: ignore-errors
# ruff: noqa: D417, SIM102

import triton
import triton.language as tl

from trimtab_server.solver.backends.cuda.separate import separate

# Loads sum to less than 2**30, and while items are left to deal no pack has the whole load:
# a pack that conflicts costs less than a full one.
_CONFLICT = tl.constexpr(1 << 30)
_FULL = tl.constexpr((1 << 31) - 1)


@triton.jit(do_not_specialize=["items", "P", "S", "groups"])
def deal(
    dealt_ptr,
    dealt_code_ptr,
    member_ptr,
    weight_ptr,
    code_ptr,
    held_ptr,
    items,
    P,
    S,
    groups,
    P2: tl.constexpr,
    GROUPS: tl.constexpr,
):
    """Deal the items of one start for each program. See the reference's `lpt` and `separate`.

    Args:
        dealt_ptr: int64 [Y, n], see `order`.
        dealt_code_ptr: int32 [Y, n], see `order`.
        member_ptr: [Y, S, P2], written; this and the next three are the packings.
        weight_ptr: [Y, S, P2], written.
        code_ptr: [Y, S, P2], written.
        held_ptr: [Y, groups, P2], written.
        items: n.
        groups: rows of `held_ptr`.
    """
    start = tl.program_id(0).to(tl.int64)
    dealt_ptr += start * items
    dealt_code_ptr += start * items
    member_ptr += start * S * P2
    weight_ptr += start * S * P2
    code_ptr += start * S * P2
    held_ptr += start * groups * P2
    packing = (member_ptr, weight_ptr, code_ptr, held_ptr)
    if GROUPS:
        for group in range(groups):
            tl.store(held_ptr + group * P2 + tl.arange(0, P2), tl.zeros([P2], tl.int16))
        tl.debug_barrier()
    load, worst = _deal_items(dealt_ptr, dealt_code_ptr, packing, items, P, S, P2, GROUPS)
    if GROUPS:
        if worst >= _CONFLICT:
            separate(packing, load, P, S, P2)


@triton.jit
def _deal_items(
    dealt_ptr, dealt_code_ptr, packing, items, P, S, P2: tl.constexpr, GROUPS: tl.constexpr
):
    """Deal the items of one start.

    Returns:
        The load of each pack, int32 [P2]; and the highest cost of any choice.
    """
    member_ptr, weight_ptr, code_ptr, held_ptr = packing
    pack = tl.arange(0, P2)
    inside = pack < P
    load, fill = tl.zeros([P2], tl.int32), tl.zeros([P2], tl.int32)
    worst = 0
    following = tl.load(dealt_ptr)
    for turn in range(items):
        dealt = following
        # Fetched one turn ahead, because everything else waits for it.
        following = tl.load(dealt_ptr + tl.minimum(turn + 1, items - 1))
        weight = dealt.to(tl.int32)
        cost = tl.where(inside & (fill < S), load, _FULL)
        code = tl.zeros([P2], tl.int32) - 1
        held = tl.zeros([P2], tl.int16)
        if GROUPS:
            code = tl.zeros([P2], tl.int32) + tl.load(dealt_code_ptr + turn)
            held = tl.load(held_ptr + code * P2 + pack, mask=inside & (code >= 0), other=0)
            cost = tl.where((held > 0) & (cost < _FULL), cost + _CONFLICT, cost)
        least = tl.min(cost, axis=0)
        chosen = tl.min(tl.where(cost == least, pack, P2), axis=0)
        here = pack == chosen
        slot = fill * P2 + pack
        tl.store(member_ptr + slot, (dealt >> 32).to(tl.int32), mask=here)
        tl.store(weight_ptr + slot, weight, mask=here)
        if GROUPS:
            worst = tl.maximum(worst, least)
            tl.store(code_ptr + slot, code, mask=here)
            tl.store(held_ptr + code * P2 + pack, (held + 1).to(tl.int16), mask=here & (code >= 0))
            tl.debug_barrier()
        load += tl.where(here, weight, 0)
        fill += here.to(tl.int32)
    return load, worst
