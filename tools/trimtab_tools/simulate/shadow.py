"""What the placements of shadow mode would have made of the windows of a trace.

Legend for all shapes: L layers, E logical experts, G GPUs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trimtab_client.exceptions import InvalidArgumentError
from trimtab_client.placement import FloatArray, Placement
from trimtab_protocol.lines import read_placement
from trimtab_tools.simulate.errors import FleetError
from trimtab_tools.simulate.history_tail import Line
from trimtab_tools.simulate.windows import ServedWindow, imbalance_of


@dataclass(frozen=True)
class ShadowPlacements:
    """The placements of shadow mode, each as if it served from the step after its decision on.

    Attributes:
        since: the first step of each, ascending, and the placement.
        moves: expert weights that would have been new to a GPU, over all decisions.
    """

    since: tuple[tuple[int, Placement], ...]
    moves: int

    def imbalance(self, served: ServedWindow, steps: int) -> float:
        """The imbalance of a window, if each of its steps had the same load; mean over layers.

        Args:
            served: the window.
            steps: number of steps in a window.
        """
        begin, end = served.window.number * steps, (served.window.number + 1) * steps
        # The first one is what was in force when shadow mode began.
        firsts = [0, *(first for first, _ in self.since[1:])]
        load_LG: FloatArray | float = 0.0
        for (_, placement), first, last in zip(self.since, firsts, [*firsts[1:], end], strict=True):
            taken = min(last, end) - max(first, begin)
            if taken > 0:
                load_LG = load_LG + placement.balance(served.load_LE).gpu_load * (taken / steps)
        return float(imbalance_of(np.asarray(load_LG)).mean())


def shadow_placements(lines: Sequence[Line]) -> ShadowPlacements | None:
    """The placements in the lines `shadow` of a history; None if there are none.

    Raises:
        FleetError: a line is wrong.
    """
    since: list[tuple[int, Placement]] = []
    moves = before = 0
    for line in lines:
        first, total, placement = _read(line)
        # All ranks may have begun anew, at step 0.
        since = [each for each in since if each[0] < first]
        since.append((first, placement))
        # The server counts from 0 again whenever another placement comes into force.
        moves += total - before if total >= before else total
        before = total
    return ShadowPlacements(tuple(since), moves) if since else None


def _read(line: Line) -> tuple[int, int, Placement]:
    """The first step of a placement, the moves so far, and the placement."""
    try:
        read = read_placement(line["placement"], "placement")
        placement = Placement.of(read.phy2log, read.num_experts, read.num_gpus)
        return int(line["step"]) + 1, int(line["moves"]), placement
    except (InvalidArgumentError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise FleetError(f"a line of the kind 'shadow' cannot be read: {error}") from error
