"""How many warps a program of each kernel gets, by the sizes that it holds in registers."""

from __future__ import annotations

from dataclasses import dataclass

from trimtab_server.solver.backends.cuda.shapes import Packs

_MAX_WARPS = 8
"""The largest number of warps that was measured."""

_MANY_STARTS = 1024
"""With so many programs a device is full, and is faster the less each of them waits."""


@dataclass(frozen=True)
class Warps:
    """Warps of one program of each kernel; None to choose by the sizes of the request.

    `deal` and `refine` are chains of reductions, and several warps would have to meet at a barrier
    in each of them: so they get one warp, until there are more packs than its registers can hold.
    The sort gets as few warps as can hold it if the device is full, and more if it is not.
    tests/bench/RESULTS.md, "Warps", has the measurements that chose these numbers.

    Attributes:
        row: of kernels that have one program for each row.
        order: of `order`.
        deal: of `deal`.
        refine: of `refine`.
    """

    row: int = 4
    order: int | None = None
    deal: int | None = None
    refine: int | None = None

    def of(self, packs: Packs) -> Warps:
        """These warps with every None replaced, for packings of these sizes."""
        return Warps(
            self.row,
            self.order or _warps_for(packs.items2, 512 if packs.starts >= _MANY_STARTS else 128),
            self.deal or (1 if packs.packs2 <= 128 else 4),
            self.refine or _warps_for(_held_by_refine(packs), 640),
        )


def _held_by_refine(packs: Packs) -> int:
    """How many numbers a program of `refine` holds at once, at most."""
    return max(2 * packs.top_k2 * packs.unrolled, 2 * packs.top_k2**2, 5 * packs.packs2)


def _warps_for(held: int, per_warp: int) -> int:
    """Warps for a program that holds `held` numbers, with `per_warp` for each warp."""
    return min(_MAX_WARPS, 1 << max(1, held // per_warp).bit_length() - 1)
