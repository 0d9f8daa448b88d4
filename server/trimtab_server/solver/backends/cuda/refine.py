"""Top-K / bottom-K swap refinement: a start's whole loop in one program.

A swap changes two packs. So the K heaviest and the K lightest packs keep slots in two
windows, a table holds the best gain of every pair of them, and after a swap only the
rows and columns of packs that changed or entered are computed again. The table ignores
groups: it bounds gains from above, and is put right where the best swap turns out to be
forbidden. So what is applied is exactly what the reference applies.
"""
# mypy: ignore-errors
# ruff: noqa: D417

import triton
import triton.language as tl

from trimtab_server.solver.backends.cuda.exchange import exchange
from trimtab_server.solver.backends.cuda.gains import find_swap, pair_gains
from trimtab_server.solver.backends.cuda.ranks import ranks, reranked, windowed

_MOST = tl.constexpr((1 << 31) - 1)


@triton.jit
def _slack(tolerance, total, P):
    """The largest max - min that ends a row: exactly the reference's float64 rule."""
    slack = 0
    if tolerance > 0:
        # (difference * P) / total never falls as the difference grows: bisect.
        beyond = 1 << 30
        while beyond - slack > 1:
            middle = slack + (beyond - slack) // 2
            spread = middle.to(tl.float64) * P.to(tl.float64) / total.to(tl.float64)
            if spread <= tolerance:
                slack = middle
            else:
                beyond = middle
    return slack


@triton.jit
def _save(state_ptr, load, heavy_rank, light_rank, heavy, light, P2: tl.constexpr):
    """Keep the state of all packs, in memory: vectors in a loop fail Triton 3.6's compiler."""
    tl.store(state_ptr, load)
    tl.store(state_ptr + P2, heavy_rank)
    tl.store(state_ptr + 2 * P2, light_rank)
    tl.store(state_ptr + 3 * P2, heavy)
    tl.store(state_ptr + 4 * P2, light)


@triton.jit
def _publish(
    window_ptr, window, load, rank, SIDE: tl.constexpr, P2: tl.constexpr, K2: tl.constexpr
):
    """Write one window's packs, loads and ranks, each by slot; SIDE 0: light, 1: heavy."""
    at, inside = SIDE * K2 + window, window >= 0
    tl.store(window_ptr + at, tl.arange(0, P2), mask=inside)
    tl.store(window_ptr + 2 * K2 + at, load, mask=inside)
    tl.store(window_ptr + 4 * K2 + at, rank, mask=inside)


@triton.jit
def _recompute(
    weight_ptr,
    window_ptr,
    table_ptr,
    row,
    column,
    S,
    K,
    P2: tl.constexpr,
    K2: tl.constexpr,
    V: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Compute one row and one column of the table again, or two rows (ROWS)."""
    both = tl.arange(0, 2 * K2)
    slot = both % K2
    second = both >= K2
    # A row is a heavy pack against all light ones, a column the reverse.
    of_q = tl.where(second, column if ROWS else column - K2, row) + K2
    of_r = slot if ROWS else both
    q, load_q = tl.load(window_ptr + of_q), tl.load(window_ptr + 2 * K2 + of_q)
    r, load_r = tl.load(window_ptr + of_r), tl.load(window_ptr + 2 * K2 + of_r)
    gain = pair_gains(weight_ptr, q, load_q, r, load_r, S, P2, V)
    at_second = column * K2 + slot if ROWS else slot * K2 + column
    at = tl.where(second, at_second, row * K2 + slot)
    tl.store(table_ptr + at, gain, mask=slot < K)


@triton.jit(do_not_specialize=["P", "S", "K", "max_swaps", "groups", "one"])
def refine(
    member_ptr,
    weight_ptr,
    code_ptr,
    held_ptr,
    window_ptr,
    state_ptr,
    table_ptr,
    tolerance_ptr,
    peak_ptr,
    square_ptr,
    counter_ptr,
    P,
    S,
    K,
    max_swaps,
    groups,
    one,
    P2: tl.constexpr,
    K2: tl.constexpr,
    S2: tl.constexpr,
    U: tl.constexpr,
    V: tl.constexpr,
    GROUPS: tl.constexpr,
):
    """One program a start, in place.

    Args:
        member_ptr: int32 [Y, S, P2]; this and the next three as `deal` left them.
        weight_ptr: int32 [Y, S, P2].
        code_ptr: int32 [Y, S, P2].
        held_ptr: int16 [Y, groups, P2].
        window_ptr: int32 [Y, 3, 2, K2], scratch: packs, loads, ranks of the light and
            of the heavy window, by slot.
        state_ptr: int32 [Y, 5, P2], scratch: of each pack its load, ranks among the
            heaviest and among the lightest, and slots in both windows, or -1.
        table_ptr: int64 [Y, K2, K2], scratch: best gains, heavy by light.
        tolerance_ptr: float64 [1].
        peak_ptr: int32 [Y], out: the heaviest pack.
        square_ptr: int64 [Y], out: the sum of squares.
        counter_ptr: int64 [2], out: steps and swaps are added.
        P: packs.
        S: slots of a pack.
        K: heaviest and lightest packs, at most P.
        max_swaps: most steps.
        groups: rows of `held_ptr`.
        one: 1, unknown to the compiler: or it would lay vectors over packs out in fours,
            to load them, and convert that for each of the scattered stores.
        U: see `find_swap`.
        V: see `pair_gains`.
    """
    start = tl.program_id(0).to(tl.int64)
    member_ptr += start * S * P2
    weight_ptr += start * S * P2
    code_ptr += start * S * P2
    held_ptr += start * groups * P2
    window_ptr += start * 6 * K2
    state_ptr += start * 5 * P2
    table_ptr += start * K2 * K2
    pack = tl.arange(0, P2)
    place = pack * one
    inside = pack < P
    heavy_slot, light_slot = tl.arange(0, K2)[:, None], tl.arange(0, K2)[None, :]
    cell = heavy_slot * K2 + light_slot

    load = tl.zeros([P2], tl.int32)
    for slot in range(S):
        load += tl.load(weight_ptr + slot * P2 + place, mask=inside, other=0)
    tl.store(state_ptr + place, load)
    slack = _slack(tl.load(tolerance_ptr), tl.maximum(tl.sum(load, axis=0), 1), P)
    going = (max_swaps > 0) & (_spread(load, inside) > slack)
    swaps = 0
    steps = 0
    if going:
        side = tl.arange(0, 2 * K2)
        tl.store(window_ptr + side, tl.zeros([2 * K2], tl.int32))
        tl.store(window_ptr + 2 * K2 + side, tl.zeros([2 * K2], tl.int32))
        tl.store(window_ptr + 4 * K2 + side, tl.zeros([2 * K2], tl.int32))
        tl.store(table_ptr + cell, tl.full([K2, K2], -1, tl.int64))
        tl.debug_barrier()
        heavy_rank, light_rank = ranks(state_ptr, load, P, P2)
        heavy = tl.where(inside & (heavy_rank < K), heavy_rank, -1)
        light = tl.where(inside & (light_rank < K), light_rank, -1)
        _save(state_ptr + place, load, heavy_rank, light_rank, heavy, light, P2)
        _publish(window_ptr, light, load, light_rank, 0, P2, K2)
        _publish(window_ptr, heavy, load, heavy_rank, 1, P2, K2)
        tl.debug_barrier()
        for row in range(0, K, 2):
            last = tl.minimum(row + 1, K - 1)
            _recompute(weight_ptr, window_ptr, table_ptr, row, last, S, K, P2, K2, V, True)
        tl.debug_barrier()

    while going:
        gains = tl.load(table_ptr + cell)
        top = tl.max(gains)
        if top <= 0:
            steps += 1
            going = top > 0
        else:
            weighs = tl.load(state_ptr + place)
            heavy_rank = tl.load(state_ptr + P2 + place)
            light_rank = tl.load(state_ptr + 2 * P2 + place)
            heavy = tl.load(state_ptr + 3 * P2 + place)
            light = tl.load(state_ptr + 4 * P2 + place)
            # Ties: the heavier pack, then the lighter one, then the lower slots.
            by_heavy = tl.load(window_ptr + 5 * K2 + heavy_slot)
            by_light = tl.load(window_ptr + 4 * K2 + light_slot)
            rank_pair = tl.where(gains == top, by_heavy * P2 + by_light, _MOST)
            first = tl.min(rank_pair)
            is_a = inside & (heavy_rank == first // P2)
            is_b = inside & (light_rank == first % P2)
            a, b = tl.max(tl.where(is_a, pack, 0), axis=0), tl.max(tl.where(is_b, pack, 0), axis=0)
            row = tl.max(tl.where(is_a, heavy, 0), axis=0)
            column = tl.max(tl.where(is_b, light, 0), axis=0)
            load_a = tl.load(window_ptr + 3 * K2 + row)
            load_b = tl.load(window_ptr + 2 * K2 + column)
            found, allowed = find_swap(
                weight_ptr, code_ptr, held_ptr, a, b, load_a - load_b, top, S, P2, S2, U, GROUPS
            )
            if found == _MOST:
                tl.debug_barrier()
                tl.store(table_ptr + row * K2 + column, allowed)
            else:
                u, v = found // S2, found % S2
                delta = tl.load(weight_ptr + u * P2 + a) - tl.load(weight_ptr + v * P2 + b)
                exchange(member_ptr, weight_ptr, code_ptr, held_ptr, a, u, b, v, P2, GROUPS)
                swaps += 1
                steps += 1
                heavy_rank, light_rank = reranked(
                    heavy_rank, light_rank, weighs, P, a, load_a, load_a - delta, P2
                )
                weighs = tl.where(is_a, load_a - delta, weighs)
                heavy_rank, light_rank = reranked(
                    heavy_rank, light_rank, weighs, P, b, load_b, load_b + delta, P2
                )
                weighs = tl.where(is_b, load_b + delta, weighs)
                heavy = windowed(heavy, heavy_rank, P, K, P2)
                light = windowed(light, light_rank, P, K, P2)
                _save(state_ptr + place, weighs, heavy_rank, light_rank, heavy, light, P2)
                _publish(window_ptr, light, weighs, light_rank, 0, P2, K2)
                _publish(window_ptr, heavy, weighs, heavy_rank, 1, P2, K2)
                tl.debug_barrier()
                going = (swaps < max_swaps) & (_spread(weighs, inside) > slack)
                # Whoever left, a's row is stale: it is a's still, or who took the slot's.
                _recompute(weight_ptr, window_ptr, table_ptr, row, column, S, K, P2, K2, V, False)
                # Where windows overlap, b may be a heavy pack too, and a a light one.
                row_b = tl.max(tl.where(is_b, heavy, -1), axis=0)
                column_a = tl.max(tl.where(is_a, light, -1), axis=0)
                row_b = tl.where(row_b >= 0, row_b, row)
                column_a = tl.where(column_a >= 0, column_a, column)
                if (row_b != row) | (column_a != column):
                    _recompute(
                        weight_ptr, window_ptr, table_ptr, row_b, column_a, S, K, P2, K2, V, False
                    )
            tl.debug_barrier()

    wide = tl.load(state_ptr + place).to(tl.int64)
    tl.store(peak_ptr + start, tl.max(wide, axis=0).to(tl.int32))
    tl.store(square_ptr + start, tl.sum(wide * wide, axis=0))
    tl.atomic_add(counter_ptr, steps.to(tl.int64))
    tl.atomic_add(counter_ptr + 1, swaps.to(tl.int64))


@triton.jit
def _spread(load, inside):
    """The heaviest pack less the lightest; packs past the last have load 0."""
    return tl.max(load, axis=0) - tl.min(tl.where(inside, load, _MOST), axis=0)
