"""The rank of each pack by load, updated after each swap."""
# mypy: ignore-errors
# ruff: noqa: D417

import triton
import triton.language as tl


@triton.jit
def heavier(load, pack, other_load, other_pack):
    """Whether the first pack ranks before the other among the heaviest; ties to the lower pack."""
    return (load > other_load) | ((load == other_load) & (pack < other_pack))


@triton.jit
def lighter(load, pack, other_load, other_pack):
    """Whether the first pack ranks before the other among the lightest; ties to the lower pack."""
    return (load < other_load) | ((load == other_load) & (pack < other_pack))


@triton.jit
def ranks(load_ptr, load, P, P2: tl.constexpr):
    """Ranks among the heaviest and among the lightest, int32 [P2] each, from scratch.

    Args:
        load_ptr: int32 [P2], the same as `load`.
        load: int32 [P2], of each pack.
    """
    pack = tl.arange(0, P2)
    heavy_rank, light_rank = tl.zeros([P2], tl.int32), tl.zeros([P2], tl.int32)
    for other in range(P):
        other_load = tl.load(load_ptr + other)
        heavy_rank += heavier(other_load, other, load, pack).to(tl.int32)
        light_rank += lighter(other_load, other, load, pack).to(tl.int32)
    return heavy_rank, light_rank


@triton.jit
def reranked(heavy_rank, light_rank, load, P, moved, old, new, P2: tl.constexpr):
    """The ranks when pack `moved` changes from load `old` to `new`.

    Args:
        load: int32 [P2], of each pack; the load of `moved` is not used.
    """
    pack = tl.arange(0, P2)
    others = (pack < P) & (pack != moved)
    heavy_rank += heavier(new, moved, load, pack).to(tl.int32)
    heavy_rank -= heavier(old, moved, load, pack).to(tl.int32)
    light_rank += lighter(new, moved, load, pack).to(tl.int32)
    light_rank -= lighter(old, moved, load, pack).to(tl.int32)
    before = tl.sum((others & heavier(load, pack, new, moved)).to(tl.int32), axis=0)
    heavy_rank = tl.where(pack == moved, before, heavy_rank)
    before = tl.sum((others & lighter(load, pack, new, moved)).to(tl.int32), axis=0)
    light_rank = tl.where(pack == moved, before, light_rank)
    return heavy_rank, light_rank


@triton.jit
def windowed(window, rank, P, K, P2: tl.constexpr):
    """The slot of each pack in a window of K packs after a swap; -1 outside.

    A swap brings two packs closer together: one falls, one rises. So at most one pack
    leaves a window. The pack that enters takes its slot, and the others keep theirs.

    Args:
        window: int32 [P2], the slots before the swap.
        rank: int32 [P2], the ranks after it.
    """
    leaves = (window >= 0) & (rank >= K)
    enters = (window < 0) & (rank < K) & (tl.arange(0, P2) < P)
    free = tl.max(tl.where(leaves, window, -1), axis=0)
    return tl.where(enters, free, tl.where(leaves, -1, window))
