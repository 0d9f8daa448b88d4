"""How many warps a program of each kernel has, by the sizes that it holds in registers."""

from __future__ import annotations

from dataclasses import dataclass

from trimtab_server.solver.backends.cuda.shapes import Packs

_MOST = 8

_MANY_STARTS = 1024
"""From here on a device is full of programs, and is the faster the less each of them waits."""


@dataclass(frozen=True)
class Warps:
    """Warps of one program of each kind; None: by the sizes of the request.

    `deal` and `refine` are chains of reductions, and with more than one warp all have to meet at a
    barrier in each: they get one until there are so many packs that its registers are short. The
    sort gets as few as hold it where the device is full, more where it is not.
    tests/bench/RESULTS.md, "Warps", has the measurements that chose the numbers here.

    Attributes:
        row: of kernels with a program a row.
        order: of the sort.
        deal: of the deal.
        refine: of refinement.
    """

    row: int = 4
    order: int | None = None
    deal: int | None = None
    refine: int | None = None

    def of(self, packs: Packs) -> Warps:
        """The same with every number chosen, for packings of these sizes."""
        return Warps(
            self.row,
            self.order or _for(packs.items2, 512 if packs.starts >= _MANY_STARTS else 128),
            self.deal or (1 if packs.packs2 <= 128 else 4),
            self.refine or _for(_held_by_refine(packs), 640),
        )


def _held_by_refine(packs: Packs) -> int:
    """The most numbers that a program of `refine` holds at a time."""
    return max(2 * packs.top_k2 * packs.unrolled, 2 * packs.top_k2**2, 5 * packs.packs2)


def _for(held: int, of_one: int) -> int:
    """Warps for `held` numbers, where one has `of_one` of them."""
    return min(_MOST, 1 << max(1, held // of_one).bit_length() - 1)
