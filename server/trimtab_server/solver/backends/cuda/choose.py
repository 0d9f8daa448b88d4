"""Chooses the best start of each row, and reads the answer off it."""
# mypy: ignore-errors
# ruff: noqa: D417

import triton
import triton.language as tl

from trimtab_server.solver.backends.cuda.replicate import number_in_layer

_MAX = tl.constexpr((1 << 63) - 1)


@triton.jit
def _best_items(starts, row, restarts, S, place, inside, P2: tl.constexpr, T2: tl.constexpr):
    """The item in each place, pack * S + slot, of the best start of a row.

    That is the start with the lowest maximum, then the lowest sum of squares, then the lowest
    index.

    Args:
        starts: three pointers: int32 [Y], the heaviest pack of each start; int64 [Y], its sum of
            squares; int32 [Y, S, P2], its items.
    """
    peak_ptr, square_ptr, member_ptr = starts
    best = row * restarts
    restart = tl.arange(0, T2)
    real = restart < restarts
    peak = tl.load(peak_ptr + best + restart, mask=real, other=0)
    square = tl.load(square_ptr + best + restart, mask=real, other=0)
    lowest = real & (peak == tl.min(tl.where(real, peak, (1 << 31) - 1), axis=0))
    least = tl.min(tl.where(lowest, square, _MAX), axis=0)
    best += tl.min(tl.where(lowest & (square == least), restart, T2), axis=0)
    at = best * S * P2 + (place % S) * P2 + place // S
    return tl.load(member_ptr + at, mask=inside, other=0)


@triton.jit(do_not_specialize=["restarts", "items", "S"])
def choose_packs(
    peak_ptr,
    square_ptr,
    member_ptr,
    restarts,
    items,
    S,
    pack_ptr,
    rank_ptr,
    P2: tl.constexpr,
    N2: tl.constexpr,
    T2: tl.constexpr,
):
    """Write pack and rank of each item, int64 [X, n] each; one row for each program."""
    row = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, N2)
    inside = place < items
    starts = (peak_ptr, square_ptr, member_ptr)
    item = _best_items(starts, row, restarts, S, place, inside, P2, T2)
    tl.store(pack_ptr + row * items + item, (place // S).to(tl.int64), mask=inside)
    tl.store(rank_ptr + row * items + item, (place % S).to(tl.int64), mask=inside)


@triton.jit(do_not_specialize=["restarts", "items", "S"])
def choose_members(
    peak_ptr,
    square_ptr,
    member_ptr,
    restarts,
    items,
    S,
    group_ptr,
    P2: tl.constexpr,
    N2: tl.constexpr,
    T2: tl.constexpr,
):
    """Write the items of the first pack, then of the second, int32 [X, n]; one row a program."""
    row = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, N2)
    inside = place < items
    starts = (peak_ptr, square_ptr, member_ptr)
    item = _best_items(starts, row, restarts, S, place, inside, P2, T2)
    tl.store(group_ptr + row * items + place, item, mask=inside)


@triton.jit(do_not_specialize=["restarts", "items", "S", "experts", "group_size"])
def choose_experts(
    peak_ptr,
    square_ptr,
    member_ptr,
    restarts,
    items,
    S,
    expert_ptr,
    group_ptr,
    phy2log_ptr,
    experts,
    group_size,
    P2: tl.constexpr,
    N2: tl.constexpr,
    T2: tl.constexpr,
    HIERARCHICAL: tl.constexpr,
):
    """Write the expert of each slot; one row for each program.

    Args:
        expert_ptr: int32 [X, R], each replica's expert, numbered within the row.
        group_ptr: int32 [L, groups], see `number_in_layer`.
        phy2log_ptr: int64 [X, R], written, numbered within the layer.
        items: R of a row.
        experts: E of a row.
        group_size: experts of a group.
    """
    row = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, N2)
    inside = place < items
    starts = (peak_ptr, square_ptr, member_ptr)
    item = _best_items(starts, row, restarts, S, place, inside, P2, T2)
    expert = tl.load(expert_ptr + row * items + item, mask=inside, other=0)
    if HIERARCHICAL:
        expert = number_in_layer(group_ptr, row, expert, inside, experts, group_size)
    tl.store(phy2log_ptr + row * items + place, expert.to(tl.int64), mask=inside)
