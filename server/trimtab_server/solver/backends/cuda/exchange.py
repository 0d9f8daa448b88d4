"""Two items trade places: the one step by which packings change after the deal."""
# mypy: ignore-errors
# ruff: noqa: D417

import triton
import triton.language as tl


@triton.jit
def exchange(
    member_ptr,
    weight_ptr,
    code_ptr,
    held_ptr,
    pack_u,
    slot_u,
    pack_v,
    slot_v,
    P2: tl.constexpr,
    GROUPS: tl.constexpr,
):
    """Swap slot u with slot v, of different packs; all tables follow.

    Args:
        member_ptr: int32 [S, P2], item of each slot.
        weight_ptr: int32 [S, P2], its weight.
        code_ptr: int32 [S, P2], its group, or -1.
        held_ptr: int16 [groups, P2], how many of a group a pack holds.
    """
    at_u, at_v = slot_u * P2 + pack_u, slot_v * P2 + pack_v
    item_u, item_v = tl.load(member_ptr + at_u), tl.load(member_ptr + at_v)
    weight_u, weight_v = tl.load(weight_ptr + at_u), tl.load(weight_ptr + at_v)
    # Whatever other threads still read must have been read.
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
            _moved(held_ptr, code_u, pack_u, pack_v, P2)
            _moved(held_ptr, code_v, pack_v, pack_u, P2)
    tl.debug_barrier()


@triton.jit
def _moved(held_ptr, code, origin, target, P2: tl.constexpr):
    if code >= 0:
        before, after = held_ptr + code * P2 + origin, held_ptr + code * P2 + target
        left, there = tl.load(before), tl.load(after)
        tl.debug_barrier()
        tl.store(before, (left - 1).to(tl.int16))
        tl.store(after, (there + 1).to(tl.int16))
