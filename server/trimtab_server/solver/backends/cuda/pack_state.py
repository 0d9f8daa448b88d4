"""The state of a start's packs during refinement, in memory and as vectors; see `refine`."""
# mypy: ignore-errors

import triton
import triton.language as tl


@triton.jit
def value_at(mask, values):
    """The value at the only place where the mask is set; it is >= 0."""
    return tl.max(tl.where(mask, values, 0), axis=0)


@triton.jit
def slot_in(mask, window, otherwise):
    """The slot of a pack, given as a mask, in a window; `otherwise` if it has none."""
    slot = tl.max(tl.where(mask, window, -1), axis=0)
    return tl.where(slot >= 0, slot, otherwise)


@triton.jit
def load_state(state_ptr, P2: tl.constexpr):
    """The state as `save_state` wrote it: five vectors over packs."""
    load, heavy_rank = tl.load(state_ptr), tl.load(state_ptr + P2)
    light_rank = tl.load(state_ptr + 2 * P2)
    return load, heavy_rank, light_rank, tl.load(state_ptr + 3 * P2), tl.load(state_ptr + 4 * P2)


@triton.jit
def save_state(state, scratch, place, P2: tl.constexpr, K2: tl.constexpr):
    """Write the state of all packs, and both windows.

    The state is kept in memory, since vectors that a loop carries fail Triton 3.6's compiler.
    """
    load, heavy_rank, light_rank, heavy, light = state
    window_ptr, state_ptr, _ = scratch
    tl.store(state_ptr + place, load)
    tl.store(state_ptr + place + P2, heavy_rank)
    tl.store(state_ptr + place + 2 * P2, light_rank)
    tl.store(state_ptr + place + 3 * P2, heavy)
    tl.store(state_ptr + place + 4 * P2, light)
    _write_window(window_ptr, light, load, light_rank, 0, P2, K2)
    _write_window(window_ptr, heavy, load, heavy_rank, 1, P2, K2)
    tl.debug_barrier()


@triton.jit
def _write_window(
    window_ptr, window, load, rank, SIDE: tl.constexpr, P2: tl.constexpr, K2: tl.constexpr
):
    """Write the packs, loads and ranks of one window, by slot; SIDE 0: light, 1: heavy."""
    at, inside = SIDE * K2 + window, window >= 0
    tl.store(window_ptr + at, tl.arange(0, P2), mask=inside)
    tl.store(window_ptr + 2 * K2 + at, load, mask=inside)
    tl.store(window_ptr + 4 * K2 + at, rank, mask=inside)
