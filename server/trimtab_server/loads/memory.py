"""How fast to forget: several half-lives side by side, each believed as it has predicted. Pure.

No half-life suits all traffic: at constant shares a long one averages noise away, after a shift
a short one is right at once. So counts are averaged over several at a time, and the load is their
mixture, weighted by the likelihood that each gave to the counts that came next, with forgetting:
what was right long ago must not outweigh what is right now (dynamic model averaging: Raftery,
Karny and Ettler, Online Prediction Under Model Uncertainty, 2010).

Time is counted in cells of so many steps. What a report says of several cells is spread evenly
over them: whoever has seen some of them knows the others. So averages are judged by blocks at least
as long as a report, and never by what they have seen a part of.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from trimtab_server.loads.estimates import Loads
from trimtab_server.loads.evidence import Evidence, overdispersion

HALF_LIVES = tuple(0.5 * 2**power for power in range(10))
"""In cells: from the last one alone to some four thousand steps."""

_KEPT_BELIEF = 0.9
"""Of the log of a weight, from cell to cell: the last ten cells or so say who is right."""

_TEMPER = 0.3
"""Of a cell's log likelihood: experts and layers are not as independent as it takes them for."""

_UNSEEN = 0.5
"""Tokens that an expert is taken to have had before the first: or the first were a miracle."""

_NEIGHBOURS = 9
"""Of so many pairs of neighbouring blocks the median overdispersion counts, in one half."""

_REMEMBERED = 32
"""Blocks over which the overdispersion between two halves is averaged, since a few requests leave
it uncertain: what seems to gain does so where it seems low."""

_DRIFT = 1.5
"""By how much more they may differ since the load itself goes on, not by chance."""


Means = npt.NDArray[np.float32]
"""Tokens of a cell in each average, [A, L, E]."""


class _Block(NamedTuple):
    """What is judged at once: at least as long as a report.

    Attributes:
        means_ALE: what each average was before it; None: there was none.
        tokens_LE: that came in it, float64 [L, E].
        cells: its length.
    """

    means_ALE: Means | None
    tokens_LE: Loads
    cells: float

    def with_more(self, tokens_LE: Loads, cells: float) -> _Block:
        """The same, longer."""
        return self._replace(tokens_LE=self.tokens_LE + tokens_LE, cells=self.cells + cells)


class Memory:
    """The load of one deployment, in two halves that share no request, or in one.

    Args:
        halves: 1 or 2.
        num_layers: L.
        num_experts: E.
        half_lives: in cells; one: nothing is weighted.

    Attributes:
        halves: as given.
    """

    def __init__(
        self,
        halves: int,
        num_layers: int,
        num_experts: int,
        half_lives: Sequence[float] = HALF_LIVES,
    ) -> None:
        self.halves = halves
        self._half_lives_A = np.array(half_lives)
        self._sum_AHLE = np.zeros((len(half_lives), halves, num_layers, num_experts))
        # Of each average: the weights of all cells added up; and of each two of them, the
        # products of both weights.
        self._weight_A = np.zeros(len(half_lives))
        self._squares_AA = np.zeros((len(half_lives), len(half_lives)))
        self._belief_A = np.zeros(len(half_lives))
        # What is not judged yet; and the block before it, whose last report may go on in it.
        self._block: _Block | None = None
        self._before: _Block | None = None
        self._earlier_LE: Loads | None = None
        self._goes_on = False
        self._between = deque[float](maxlen=_REMEMBERED)
        # At first as if all were alike: a single shift is no dispersion.
        self._spreads = deque([1.0] * (_NEIGHBOURS // 3), _NEIGHBOURS)

    def add(
        self, tokens_HLE: Loads, cells: float, *, ends: bool = True, longest: float = 0.0
    ) -> None:
        """Take what came in the next so many cells, spread evenly over them.

        Args:
            tokens_HLE: float64 [H, L, E], of all these cells together.
            cells: above 0.
            ends: whether no report goes on beyond them, into what will be added next.
            longest: cells of the longest report that is in them.
        """
        if self._block is None:
            self._block = _Block(self._means(), np.zeros_like(tokens_HLE[0]), 0.0)
        self._block = self._block.with_more(tokens_HLE.sum(0), cells)
        keep_A = 2.0 ** (-cells / self._half_lives_A)
        gain_A = 1.0 - keep_A
        self._sum_AHLE *= keep_A[:, None, None, None]
        self._sum_AHLE += (gain_A / cells)[:, None, None, None] * tokens_HLE
        self._weight_A = self._weight_A * keep_A + gain_A
        self._squares_AA *= np.outer(keep_A, keep_A)
        # All tokens of the span weigh the same, whichever of its cells they came in.
        self._squares_AA += np.outer(gain_A, gain_A) / cells
        if ends or self._block.cells >= longest:
            self._judge(self._block, ends)
            self._block = None

    @property
    def cells(self) -> float:
        """How many cells of equal weight it remembers, in effect; 0: none yet."""
        part_A = self._parts()
        squares = float(part_A @ self._squares_AA @ part_A)
        return 1.0 / squares if squares else 0.0

    @property
    def weights(self) -> npt.NDArray[np.float64]:
        """Of each half-life in the mixture; their sum is 1."""
        likely_A = np.exp(self._belief_A - self._belief_A.max())
        return np.asarray(likely_A / likely_A.sum())

    def rate(self) -> Loads:
        """Tokens of a cell, float64 [H, L, E]; zeros before anything was added."""
        return np.tensordot(self._parts(), self._sum_AHLE, axes=1)

    def evidence(self) -> Evidence:
        """What the rate rests on."""
        cells, rate_HLE = self.cells, self.rate()
        tokens_L = rate_HLE.sum((0, 2)) * cells
        if len(rate_HLE) == 1:
            spread = float(np.median(self._spreads))
            return Evidence(tokens_L, max(1.0, spread / _DRIFT))
        spread = max(self._between[-1], float(np.mean(self._between))) if self._between else 1.0
        return Evidence(tokens_L, spread, rate_HLE)

    def _parts(self) -> npt.NDArray[np.float64]:
        """What each average is to be multiplied by to be its part of the mixture."""
        parts: npt.NDArray[np.float64] = np.divide(
            self.weights,
            self._weight_A,
            out=np.zeros_like(self._weight_A),
            where=self._weight_A > 0,
        )
        return parts

    def _means(self) -> Means | None:
        """What each average is now; None: nothing yet."""
        if not self._weight_A.any():
            return None
        # Single precision: it is kept twice, and nobody looks at its last digits.
        sum_ALE = self._sum_AHLE.sum(1, dtype=np.float32)
        return np.asarray(sum_ALE / self._weight_A.astype(np.float32)[:, None, None])

    def _judge(self, block: _Block, ends: bool) -> None:
        """Believe those averages more that have foretold these shares.

        Those that had seen a part of a report do not foretell the rest of it. So a block that
        begins within one is judged by what was known a block earlier, which shares none with it.
        """
        before = self._before if self._goes_on else block
        if before is not None and before.means_ALE is not None:
            foretold_ALE = before.means_ALE + np.float32(_UNSEEN / block.tokens_LE.shape[1])
            foretold_ALE /= foretold_ALE.sum(2, keepdims=True)
            likely_A = np.einsum("le,ale->a", block.tokens_LE, np.log(foretold_ALE))
            self._belief_A *= _KEPT_BELIEF**block.cells
            self._belief_A += _TEMPER * likely_A
            # Only differences matter, and these stay small.
            self._belief_A -= self._belief_A.max()
        self._compare(block)
        self._goes_on, self._before = not ends, block

    def _compare(self, block: _Block) -> None:
        """See how far blocks or halves differ."""
        if self.halves == 2:
            self._between.append(overdispersion(*(self.rate() * self.cells)))
            return
        if not self._goes_on and self._before is not None:
            self._spreads.append(overdispersion(self._before.tokens_LE, block.tokens_LE))
        elif self._goes_on and self._earlier_LE is not None:
            self._spreads.append(overdispersion(self._earlier_LE, block.tokens_LE))
        self._earlier_LE = None if self._before is None else self._before.tokens_LE
