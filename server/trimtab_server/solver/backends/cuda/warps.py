"""How many warps a program of each kernel has, by the sizes that it holds in registers."""

from __future__ import annotations

from dataclasses import dataclass

from trimtab_server.solver.backends.cuda.shapes import Packs

_MOST = 8


@dataclass(frozen=True)
class Warps:
    """Warps of one program of each kind; None: by the sizes of the request.

    `deal` and `refine` are chains of reductions, and with more than one warp all have to meet
    at a barrier in each. So they get one, unless its registers would not hold the vectors over
    packs. Device time of a plan of 58 layers, top 16, 32 restarts, on an H200 (`python -m
    tests.gpu warps`, 288 slots on 32 GPUs, then on 72): `refine` with 1, 2 and 4 warps 378, 485,
    670 us, then 634, 891, 1199; `deal` 373, 413, 486, then 631, 684, 737; `order` 348, 374, 378,
    then 601, 633, 629; kernels with a program a row do not care.

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
            self.order or _for(packs.items2, 512),
            self.deal or _for(packs.packs2, 256),
            self.refine or _for(_held_by_refine(packs), 1024),
        )


def _held_by_refine(packs: Packs) -> int:
    """The most numbers that a program of `refine` holds at a time."""
    return max(2 * packs.top_k2 * packs.unrolled, 2 * packs.top_k2**2, 5 * packs.packs2)


def _for(held: int, of_one: int) -> int:
    """Warps for `held` numbers, where one warp's registers take `of_one`."""
    return min(_MOST, 1 << max(1, held // of_one).bit_length() - 1)
