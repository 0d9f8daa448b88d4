"""Launches the packing of all starts: prepare, order, deal, refine. Buffers, grids and strides."""

from __future__ import annotations

import torch
from torch import Tensor

from trimtab_server.solver.backends.cuda.deal import deal
from trimtab_server.solver.backends.cuda.order import order
from trimtab_server.solver.backends.cuda.refine import refine
from trimtab_server.solver.backends.cuda.replicate import prepare
from trimtab_server.solver.backends.cuda.shapes import Packs, power_of_two
from trimtab_server.solver.backends.cuda.warps import Warps


class Starts:
    """The packing of one batch: scratch memory, and the result of each start.

    Attributes:
        seed: int64 [1], hash of the seed (`reference/noise.py`), for the caller to set.
        counters: int64 [2]: the steps and the swaps are added to it.
        member_YSP: int32, written: the item in each slot of each pack, P padded to packs2.
        peak_Y: int32, written: the load of the heaviest pack.
        square_Y: int64, written: the sum of squared pack loads.
    """

    def __init__(
        self, packs: Packs, tolerance: float, counters: Tensor, device: torch.device, warps: Warps
    ) -> None:
        def scratch(*shape: int, dtype: torch.dtype = torch.int32) -> Tensor:
            return torch.empty(packs.starts, *shape, dtype=dtype, device=device)

        members = packs.slots, packs.packs2
        grouped = packs.groups > 0
        self.packs, self.warps, self.counters = packs, warps.of(packs), counters
        self.seed = torch.zeros(1, dtype=torch.int64, device=device)
        self.tolerance = torch.tensor([tolerance], dtype=torch.float64, device=device)
        self.member_YSP, self.weight_YSP = scratch(*members), scratch(*members)
        self.code_YSP = scratch(*members) if grouped else self.weight_YSP
        self.held_YGP = scratch(packs.groups, packs.packs2, dtype=torch.int16)
        self.dealt_YI = scratch(packs.items, dtype=torch.int64)
        self.dealt_code_YI = scratch(packs.items) if grouped else self.dealt_YI
        self.window_Y = scratch(6 * packs.top_k2)
        self.state_YP = scratch(5 * packs.packs2)
        self.table_YKK = scratch(packs.top_k2, packs.top_k2, dtype=torch.int64)
        self.peak_Y, self.square_Y = scratch(), scratch(dtype=torch.int64)

    @property
    def results(self) -> tuple[Tensor, Tensor, Tensor, int, int, int]:
        """The first arguments of the kernels that choose each row's best start."""
        packs = self.packs
        sizes = packs.restarts, packs.items, packs.slots
        return self.peak_Y, self.square_Y, self.member_YSP, *sizes

    @property
    def choice(self) -> dict[str, int]:
        """The constants of the kernels that choose each row's best start."""
        packs = self.packs
        lengths = {"P2": packs.packs2, "N2": packs.items2, "T2": power_of_two(packs.restarts, 2)}
        return {**lengths, "num_warps": self.warps.row, "num_stages": 1}

    def launch_prepare(
        self, amount_XI: Tensor, group_XI: Tensor, weight_XI: Tensor, code_XI: Tensor
    ) -> None:
        """Queue `prepare`; the last two are written, and `code_XI` only if there are groups."""
        packs = self.packs
        prepare[packs.rows,](
            amount_XI,
            group_XI,
            weight_XI,
            code_XI,
            packs.items,
            N2=packs.items2,
            GROUPS=packs.groups > 0,
            num_warps=self.warps.row,
            num_stages=1,
        )

    def launch(self, weight_XI: Tensor, code_XI: Tensor) -> None:
        """Queue `order`, `deal` and `refine`.

        Args:
            weight_XI: int32 [X, n], see `quantise`.
            code_XI: int32 [X, n], each item's group, or -1; not read without groups.
        """
        self.launch_order(weight_XI, code_XI)
        self.launch_deal()
        self.launch_refine()

    def launch_order(self, weight_XI: Tensor, code_XI: Tensor) -> None:
        """Queue `order`."""
        packs = self.packs
        order[packs.starts,](
            weight_XI,
            code_XI,
            self.seed,
            self.dealt_YI,
            self.dealt_code_YI,
            packs.restarts,
            packs.items,
            N2=packs.items2,
            GROUPS=packs.groups > 0,
            num_warps=self.warps.order,
            num_stages=1,
        )

    def launch_deal(self) -> None:
        """Queue `deal`."""
        packs = self.packs
        deal[packs.starts,](
            self.dealt_YI,
            self.dealt_code_YI,
            self.member_YSP,
            self.weight_YSP,
            self.code_YSP,
            self.held_YGP,
            packs.items,
            packs.packs,
            packs.slots,
            packs.groups,
            P2=packs.packs2,
            GROUPS=packs.groups > 0,
            num_warps=self.warps.deal,
            num_stages=1,
        )

    def launch_refine(self) -> None:
        """Queue `refine`."""
        packs = self.packs
        refine[packs.starts,](
            self.member_YSP,
            self.weight_YSP,
            self.code_YSP,
            self.held_YGP,
            self.window_Y,
            self.state_YP,
            self.table_YKK,
            self.tolerance,
            self.peak_Y,
            self.square_Y,
            self.counters,
            packs.packs,
            packs.slots,
            packs.top_k,
            packs.max_swaps,
            packs.groups,
            1,
            P2=packs.packs2,
            K2=packs.top_k2,
            S2=packs.slots2,
            U=packs.chunk,
            V=packs.unrolled,
            GROUPS=packs.groups > 0,
            num_warps=self.warps.refine,
            num_stages=1,
        )
