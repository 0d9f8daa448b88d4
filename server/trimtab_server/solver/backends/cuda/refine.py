"""Top-K / bottom-K swap refinement: a start's whole loop in one program.

A swap changes two packs. So the K heaviest and the K lightest packs keep slots in two
windows, a table holds the best gain of every pair of them, and after a swap only the
rows and columns of packs that changed or entered are computed again. The table ignores
groups: it bounds gains from above, and is put right where the best swap turns out to be
forbidden. So what is applied is exactly what the reference applies.
"""
# mypy: ignore-errors

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
def _publish(window_ptr, window, pack, load, rank, SIDE: tl.constexpr, K2: tl.constexpr):
    """Write one window's packs, loads and ranks, each by slot; SIDE 0: light, 1: heavy."""
    at, inside = SIDE * K2 + window, window >= 0
    tl.store(window_ptr + at, pack, mask=inside)
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
    S2: tl.constexpr,
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
    gain = pair_gains(weight_ptr, q, load_q, r, load_r, S, P2, S2)
    at_second = column * K2 + slot if ROWS else slot * K2 + column
    at = tl.where(second, at_second, row * K2 + slot)
    tl.store(table_ptr + at, gain, mask=slot < K)


@triton.jit(do_not_specialize=["P", "S", "K", "max_swaps", "groups"])
def refine(
    member_ptr,
    weight_ptr,
    code_ptr,
    held_ptr,
    window_ptr,
    load_ptr,
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
    P2: tl.constexpr,
    K2: tl.constexpr,
    S2: tl.constexpr,
    U: tl.constexpr,
    GROUPS: tl.constexpr,
):
    """One program a start, in place.

    Args:
        member_ptr: int32 [Y, S, P2]; this and the next three as `deal` left them.
        weight_ptr: int32 [Y, S, P2].
        code_ptr: int32 [Y, S, P2].
        held_ptr: int8 [Y, groups, P2].
        window_ptr: int32 [Y, 3, 2, K2], scratch: packs, loads, ranks of the light and
            of the heavy window, by slot.
        load_ptr: int32 [Y, P2], scratch.
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
        U: see `find_swap`.
    """
    start = tl.program_id(0).to(tl.int64)
    member_ptr += start * S * P2
    weight_ptr += start * S * P2
    code_ptr += start * S * P2
    held_ptr += start * groups * P2
    window_ptr += start * 6 * K2
    load_ptr += start * P2
    table_ptr += start * K2 * K2
    pack = tl.arange(0, P2)
    inside = pack < P
    heavy_slot, light_slot = tl.arange(0, K2)[:, None], tl.arange(0, K2)[None, :]
    cell = heavy_slot * K2 + light_slot

    load = tl.zeros([P2], tl.int32)
    for slot in range(S):
        load += tl.load(weight_ptr + slot * P2 + pack, mask=inside, other=0)
    slack = _slack(tl.load(tolerance_ptr), tl.maximum(tl.sum(load, axis=0), 1), P)
    going = max_swaps > 0
    going = going & (_spread(load, inside) > slack)
    swaps = 0
    steps = 0
    heavy_rank, light_rank = load, load
    heavy, light = load, load
    if going:
        tl.store(load_ptr + pack, load)
        tl.store(window_ptr + tl.arange(0, 2 * K2), tl.zeros([2 * K2], tl.int32))
        tl.store(window_ptr + 2 * K2 + tl.arange(0, 2 * K2), tl.zeros([2 * K2], tl.int32))
        tl.store(window_ptr + 4 * K2 + tl.arange(0, 2 * K2), tl.zeros([2 * K2], tl.int32))
        tl.store(table_ptr + cell, tl.full([K2, K2], -1, tl.int64))
        tl.debug_barrier()
        heavy_rank, light_rank = ranks(load_ptr, load, P, P2)
        heavy = tl.where(inside & (heavy_rank < K), heavy_rank, -1)
        light = tl.where(inside & (light_rank < K), light_rank, -1)
        _publish(window_ptr, light, pack, load, light_rank, 0, K2)
        _publish(window_ptr, heavy, pack, load, heavy_rank, 1, K2)
        tl.debug_barrier()
        for row in range(0, K, 2):
            _recompute(
                weight_ptr,
                window_ptr,
                table_ptr,
                row,
                tl.minimum(row + 1, K - 1),
                S,
                K,
                P2,
                K2,
                S2,
                True,
            )
        tl.debug_barrier()

    while going:
        gains = tl.load(table_ptr + cell)
        top = tl.max(tl.max(gains, axis=1), axis=0)
        if top <= 0:
            steps += 1
            going = top > 0
        else:
            # Ties: the heavier pack, then the lighter one, then the lower slots.
            by_heavy = tl.load(window_ptr + 5 * K2 + heavy_slot)
            by_light = tl.load(window_ptr + 4 * K2 + light_slot)
            rank_pair = tl.where(gains == top, by_heavy * P2 + by_light, _MOST)
            first = tl.min(tl.min(rank_pair, axis=1), axis=0)
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
                tl.debug_barrier()
            else:
                u, v = found // S2, found % S2
                delta = tl.load(weight_ptr + u * P2 + a) - tl.load(weight_ptr + v * P2 + b)
                exchange(member_ptr, weight_ptr, code_ptr, held_ptr, a, u, b, v, P2, GROUPS)
                swaps += 1
                steps += 1
                heavy_rank, light_rank = reranked(
                    heavy_rank, light_rank, load, P, a, load_a, load_a - delta, P2
                )
                load = tl.where(is_a, load_a - delta, load)
                heavy_rank, light_rank = reranked(
                    heavy_rank, light_rank, load, P, b, load_b, load_b + delta, P2
                )
                load = tl.where(is_b, load_b + delta, load)
                going = (swaps < max_swaps) & (_spread(load, inside) > slack)
                if going:
                    heavy = windowed(heavy, heavy_rank, P, K, P2)
                    light = windowed(light, light_rank, P, K, P2)
                    _publish(window_ptr, light, pack, load, light_rank, 0, K2)
                    _publish(window_ptr, heavy, pack, load, heavy_rank, 1, K2)
                    tl.debug_barrier()
                    # Whoever left, a's row is stale: it is a's still, or who took the slot's.
                    _recompute(
                        weight_ptr, window_ptr, table_ptr, row, column, S, K, P2, K2, S2, False
                    )
                    # Where windows overlap, b may be a heavy pack too, and a a light one.
                    other_row = tl.max(tl.where(is_b, heavy, -1), axis=0)
                    other_column = tl.max(tl.where(is_a, light, -1), axis=0)
                    other_row = tl.where(other_row >= 0, other_row, row)
                    other_column = tl.where(other_column >= 0, other_column, column)
                    if (other_row != row) | (other_column != column):
                        _recompute(
                            weight_ptr,
                            window_ptr,
                            table_ptr,
                            other_row,
                            other_column,
                            S,
                            K,
                            P2,
                            K2,
                            S2,
                            False,
                        )
                    tl.debug_barrier()

    wide = load.to(tl.int64)
    tl.store(peak_ptr + start, tl.max(load, axis=0))
    tl.store(square_ptr + start, tl.sum(wide * wide, axis=0))
    tl.atomic_add(counter_ptr, steps.to(tl.int64))
    tl.atomic_add(counter_ptr + 1, swaps.to(tl.int64))


@triton.jit
def _spread(load, inside):
    """The heaviest pack less the lightest; packs past the last have load 0."""
    return tl.max(load, axis=0) - tl.min(tl.where(inside, load, _MOST), axis=0)
