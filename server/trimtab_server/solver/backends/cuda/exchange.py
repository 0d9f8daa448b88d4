"""Swaps two items: the only step that changes a packing after the deal."""
# mypy: ignore-errors

import triton
import triton.language as tl


@triton.jit
def exchange(packing, pack_u, slot_u, pack_v, slot_v, P2: tl.constexpr, GROUPS: tl.constexpr):
    """Swap the items in slots u and v of two different packs, in all tables of the packing."""
    member_ptr, weight_ptr, code_ptr, held_ptr = packing
    at_u, at_v = slot_u * P2 + pack_u, slot_v * P2 + pack_v
    item_u, item_v = tl.load(member_ptr + at_u), tl.load(member_ptr + at_v)
    weight_u, weight_v = tl.load(weight_ptr + at_u), tl.load(weight_ptr + at_v)
    # Other threads must finish their reads before these cells change.
    tl.debug_barrier()
    tl.store(member_ptr + at_u, item_v)
    tl.store(member_ptr + at_v, item_u)
    tl.store(weight_ptr + at_u, weight_v)
    tl.store(weight_ptr + at_v, weight_u)
    if GROUPS:
        code_u, code_v = tl.load(code_ptr + at_u), tl.load(code_ptr + at_v)
        tl.debug_barrier()
        if code_u != code_v:
            tl.store(code_ptr + at_u, code_v)
            tl.store(code_ptr + at_v, code_u)
            _count_move(held_ptr, code_u, pack_u, pack_v, P2)
            _count_move(held_ptr, code_v, pack_v, pack_u, P2)
    tl.debug_barrier()


@triton.jit
def _count_move(held_ptr, code, origin, target, P2: tl.constexpr):
    """Count an item of a group in its new pack instead of its old one."""
    if code >= 0:
        before, after = held_ptr + code * P2 + origin, held_ptr + code * P2 + target
        left, there = tl.load(before), tl.load(after)
        tl.debug_barrier()
        tl.store(before, (left - 1).to(tl.int16))
        tl.store(after, (there + 1).to(tl.int16))
