"""Top-K / bottom-K swap refinement: the whole loop of a start in one program.

A swap changes two packs. So the K heaviest and the K lightest packs keep slots in two
windows, a table holds the best gain of every pair of them, and after a swap only the
rows and columns of packs that changed or entered are computed again. The table ignores
groups: it bounds gains from above, and is corrected when the best swap turns out to be
forbidden. So exactly the swaps of the reference are applied.

Beside its packing (see the package) a start has three buffers. Functions pass pointers to
them as one tuple `scratch`:

    window_ptr: int32 [3, 2, K2], the packs, loads and ranks in each slot of the light and of
        the heavy window.
    state_ptr: int32 [5, P2], for each pack its load, its ranks among the heaviest and among
        the lightest, and its slots in the heavy and in the light window, or -1.
    table_ptr: int64 [K2, K2], best gains, heavy by light.

The tuple `axes` has the vectors that number packs and slots of windows: pack numbers; the
same as offsets for loads and stores; which packs there are; heavy slots, as a column; light
slots, as a row. The tuple `sizes` is (P, S, K), and K is at most P. For U see `find_swap`,
for V `pair_gains`.
"""
# mypy: ignore-errors
# ruff: noqa: D417

import triton
import triton.language as tl

from trimtab_server.solver.backends.cuda.exchange import exchange
from trimtab_server.solver.backends.cuda.gains import find_swap, pair_gains
from trimtab_server.solver.backends.cuda.pack_state import load_state, save_state, slot_in, value_at
from trimtab_server.solver.backends.cuda.ranks import ranks, reranked, windowed

_MAX = tl.constexpr((1 << 31) - 1)


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
    """Refine one start for each program, in place.

    Args:
        member_ptr: [Y, S, P2]; this and the next three are the packings, as `deal` left them.
        window_ptr: [Y, 3, 2, K2]; this and the next two are scratch.
        tolerance_ptr: float64 [1].
        peak_ptr: int32 [Y], written: the load of the heaviest pack.
        square_ptr: int64 [Y], written: the sum of squared loads.
        counter_ptr: int64 [2]: the steps and the swaps are added to it.
        groups: rows of `held_ptr`.
        one: 1, unknown to the compiler. Otherwise the compiler would lay out vectors over
            packs in fours to load them, and convert that for each of the scattered stores.
    """
    start = tl.program_id(0).to(tl.int64)
    member_ptr += start * S * P2
    weight_ptr += start * S * P2
    code_ptr += start * S * P2
    held_ptr += start * groups * P2
    window_ptr += start * 6 * K2
    state_ptr += start * 5 * P2
    table_ptr += start * K2 * K2
    packing = (member_ptr, weight_ptr, code_ptr, held_ptr)
    scratch = (window_ptr, state_ptr, table_ptr)
    pack = tl.arange(0, P2)
    heavy_slot, light_slot = tl.arange(0, K2)[:, None], tl.arange(0, K2)[None, :]
    place = pack * one
    axes = (pack, place, pack < P, heavy_slot, light_slot)
    steps, swaps = _refine_start(
        packing, scratch, tolerance_ptr, axes, max_swaps, (P, S, K), P2, K2, S2, U, V, GROUPS
    )
    load = tl.load(state_ptr + place).to(tl.int64)
    tl.store(peak_ptr + start, tl.max(load, axis=0).to(tl.int32))
    tl.store(square_ptr + start, tl.sum(load * load, axis=0))
    tl.atomic_add(counter_ptr, steps.to(tl.int64))
    tl.atomic_add(counter_ptr + 1, swaps.to(tl.int64))


@triton.jit
def _refine_start(
    packing,
    scratch,
    tolerance_ptr,
    axes,
    max_swaps,
    sizes,
    P2: tl.constexpr,
    K2: tl.constexpr,
    S2: tl.constexpr,
    U: tl.constexpr,
    V: tl.constexpr,
    GROUPS: tl.constexpr,
):
    """Apply the best swap of a start until none gains; the steps tried and the swaps applied."""
    _, weight_ptr, _, _ = packing
    _, state_ptr, table_ptr = scratch
    P, S, _ = sizes
    _, place, inside, heavy_slot, light_slot = axes
    load = tl.zeros([P2], tl.int32)
    for slot in range(S):
        load += tl.load(weight_ptr + slot * P2 + place, mask=inside, other=0)
    tl.store(state_ptr + place, load)
    slack = _slack(tl.load(tolerance_ptr), tl.maximum(tl.sum(load, axis=0), 1), P)
    going = (max_swaps > 0) & (_spread(load, inside) > slack)
    swaps = 0
    steps = 0
    if going:
        _fill_table(weight_ptr, scratch, load, axes, sizes, P2, K2, V)
    cell = heavy_slot * K2 + light_slot
    while going:
        gains = tl.load(table_ptr + cell)
        top = tl.max(gains)
        if top <= 0:
            steps += 1
            going = top > 0
        else:
            progress, limits = (steps, swaps, going), (max_swaps, slack)
            steps, swaps, going = _try_best_pair(
                packing, scratch, axes, gains, progress, limits, sizes, P2, K2, S2, U, V, GROUPS
            )
    return steps, swaps


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
def _spread(load, inside):
    """The heaviest load minus the lightest; packs beyond the last have load 0."""
    return tl.max(load, axis=0) - tl.min(tl.where(inside, load, _MAX), axis=0)


@triton.jit
def _fill_table(
    weight_ptr, scratch, load, axes, sizes, P2: tl.constexpr, K2: tl.constexpr, V: tl.constexpr
):
    """Fill the windows, the state and the table for the first step."""
    window_ptr, state_ptr, table_ptr = scratch
    P, S, K = sizes
    side = tl.arange(0, 2 * K2)
    for field in tl.static_range(3):
        tl.store(window_ptr + field * 2 * K2 + side, tl.zeros([2 * K2], tl.int32))
    _, place, inside, heavy_slot, light_slot = axes
    cell = heavy_slot * K2 + light_slot
    tl.store(table_ptr + cell, tl.full([K2, K2], -1, tl.int64))
    tl.debug_barrier()
    heavy_rank, light_rank = ranks(state_ptr, load, P, P2)
    heavy = tl.where(inside & (heavy_rank < K), heavy_rank, -1)
    light = tl.where(inside & (light_rank < K), light_rank, -1)
    save_state((load, heavy_rank, light_rank, heavy, light), scratch, place, P2, K2)
    for row in range(0, K, 2):
        last = tl.minimum(row + 1, K - 1)
        _recompute(weight_ptr, window_ptr, table_ptr, row, last, S, K, P2, K2, V, True)
    tl.debug_barrier()


@triton.jit
def _try_best_pair(
    packing,
    scratch,
    axes,
    gains,
    progress,
    limits,
    sizes,
    P2: tl.constexpr,
    K2: tl.constexpr,
    S2: tl.constexpr,
    U: tl.constexpr,
    V: tl.constexpr,
    GROUPS: tl.constexpr,
):
    """Apply the best swap of the pair of packs that gains most, or correct that pair's gain.

    Args:
        progress: steps and swaps so far, and whether to go on.
        limits: how many swaps are allowed, and the spread of loads that is good enough.

    Returns:
        The new `progress`: unchanged if groups forbid all swaps that gain so much.
    """
    steps, swaps, going = progress
    max_swaps, slack = limits
    P, S, K = sizes
    _, weight_ptr, _, _ = packing
    window_ptr, state_ptr, table_ptr = scratch
    pack, place, inside, _, _ = axes
    state = load_state(state_ptr + place, P2)
    _, heavy_rank, light_rank, heavy, light = state
    is_a, is_b = _best_pair(window_ptr, heavy_rank, light_rank, gains, axes, P2, K2)
    a, b = value_at(is_a, pack), value_at(is_b, pack)
    row, column = value_at(is_a, heavy), value_at(is_b, light)
    load_a = tl.load(window_ptr + 3 * K2 + row)
    load_b = tl.load(window_ptr + 2 * K2 + column)
    top, gap = tl.max(gains), load_a - load_b
    found, allowed = find_swap(packing, a, b, gap, top, S, P2, S2, U, GROUPS)
    if found == _MAX:
        tl.debug_barrier()
        tl.store(table_ptr + row * K2 + column, allowed)
    else:
        u, v = found // S2, found % S2
        delta = tl.load(weight_ptr + u * P2 + a) - tl.load(weight_ptr + v * P2 + b)
        exchange(packing, a, u, b, v, P2, GROUPS)
        swaps += 1
        steps += 1
        state = _with_load(state, is_a, a, load_a, load_a - delta, P, P2)
        state = _with_load(state, is_b, b, load_b, load_b + delta, P, P2)
        load, heavy_rank, light_rank, heavy, light = state
        heavy = windowed(heavy, heavy_rank, P, K, P2)
        light = windowed(light, light_rank, P, K, P2)
        save_state((load, heavy_rank, light_rank, heavy, light), scratch, place, P2, K2)
        going = (swaps < max_swaps) & (_spread(load, inside) > slack)
        _recompute_swapped(
            weight_ptr, scratch, is_a, is_b, heavy, light, row, column, sizes, P2, K2, V
        )
    tl.debug_barrier()
    return steps, swaps, going


@triton.jit
def _with_load(state, is_moved, moved, old, new, P, P2: tl.constexpr):
    """The state when the load of pack `moved` changes from `old` to `new`; windows stay."""
    load, heavy_rank, light_rank, heavy, light = state
    heavy_rank, light_rank = reranked(heavy_rank, light_rank, load, P, moved, old, new, P2)
    return tl.where(is_moved, new, load), heavy_rank, light_rank, heavy, light


@triton.jit
def _best_pair(window_ptr, heavy_rank, light_rank, gains, axes, P2: tl.constexpr, K2: tl.constexpr):
    """The heavy and the light pack of the pair that gains most, as masks over packs."""
    _, _, inside, heavy_slot, light_slot = axes
    # Ties: the heavier pack, then the lighter one.
    by_heavy = tl.load(window_ptr + 5 * K2 + heavy_slot)
    by_light = tl.load(window_ptr + 4 * K2 + light_slot)
    first = tl.min(tl.where(gains == tl.max(gains), by_heavy * P2 + by_light, _MAX))
    return inside & (heavy_rank == first // P2), inside & (light_rank == first % P2)


@triton.jit
def _recompute_swapped(
    weight_ptr,
    scratch,
    is_a,
    is_b,
    heavy,
    light,
    row,
    column,
    sizes,
    P2: tl.constexpr,
    K2: tl.constexpr,
    V: tl.constexpr,
):
    """Compute again what two packs gain that swapped items: a in `row`, and b in `column`.

    The row and the column are stale also where another pack took the slot of a or b.
    """
    window_ptr, _, table_ptr = scratch
    _, S, K = sizes
    _recompute(weight_ptr, window_ptr, table_ptr, row, column, S, K, P2, K2, V, False)
    # Where windows overlap, b may be a heavy pack too, and a a light one.
    row_b, column_a = slot_in(is_b, heavy, row), slot_in(is_a, light, column)
    if (row_b != row) | (column_a != column):
        _recompute(weight_ptr, window_ptr, table_ptr, row_b, column_a, S, K, P2, K2, V, False)


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
    """Compute one row and one column of the table again; with ROWS, two rows."""
    both = tl.arange(0, 2 * K2)
    slot = both % K2
    second = both >= K2
    # A row is a heavy pack with all light ones, a column a light pack with all heavy ones.
    of_q = tl.where(second, column if ROWS else column - K2, row) + K2
    of_r = slot if ROWS else both
    q, load_q = tl.load(window_ptr + of_q), tl.load(window_ptr + 2 * K2 + of_q)
    r, load_r = tl.load(window_ptr + of_r), tl.load(window_ptr + 2 * K2 + of_r)
    gain = pair_gains(weight_ptr, q, load_q, r, load_r, S, P2, V)
    at_second = column * K2 + slot if ROWS else slot * K2 + column
    at = tl.where(second, at_second, row * K2 + slot)
    tl.store(table_ptr + at, gain, mask=slot < K)
