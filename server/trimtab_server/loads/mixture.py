"""A mixture of averages with different half-lives, weighted by how well each predicts. Pure.

No half-life suits all traffic: at constant shares a long one averages noise away, and after a shift
a short one is right at once. So counts are averaged with several half-lives, and the load is a
mixture of these averages. Each is weighted by the likelihood that it gave to the counts that came
next. Older likelihoods count less, so that an average that was right long ago does not outweigh one
that is right now (dynamic model averaging: Raftery, Karny and Ettler, Online Prediction Under Model
Uncertainty, 2010).

Time is counted in cells of a fixed number of steps. A report of several cells is spread evenly over
them, so an average that contains some of these cells also predicts the others. Therefore averages
are scored on blocks that are at least as long as a report, and never on a report of which they
contain a part.
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
"""In cells: from almost only the last cell to about four thousand steps."""

_KEPT_SCORE = 0.9
"""The share of an average's score that is kept from cell to cell, so that about the last ten cells
decide which averages are right."""

_TEMPER = 0.3
"""The weight of a cell's log likelihood. It is below 1 because the likelihood assumes that experts
and layers are independent, which they are not."""

_UNSEEN = 0.5
"""Tokens that are added to each average of an expert, so that the first token of an expert is not
infinitely unlikely."""

_NEIGHBOURS = 9
"""With one half, the overdispersion is the median over so many pairs of neighbouring blocks."""

_REMEMBERED = 32
"""With two halves, the overdispersion is averaged over so many blocks. A single value is uncertain
if there are few requests, and moves would seem to gain most where it happens to be low."""

_DRIFT = 1.5
"""Neighbouring blocks may differ more than by chance by this factor, because the load drifts."""


Means = npt.NDArray[np.float32]
"""Tokens per cell in each average, [A, L, E]."""


class _Block(NamedTuple):
    """Cells on which the averages are scored together: at least as long as a report.

    Attributes:
        means_ALE: the averages before the block; None if there were none.
        tokens_LE: the tokens in the block, float64 [L, E].
        cells: its length.
    """

    means_ALE: Means | None
    tokens_LE: Loads
    cells: float

    def with_more(self, tokens_LE: Loads, cells: float) -> _Block:
        """The block with more cells at its end."""
        return self._replace(tokens_LE=self.tokens_LE + tokens_LE, cells=self.cells + cells)


class LoadMixture:
    """The load of one deployment, in one half, or in two halves that share no request.

    Args:
        halves: 1 or 2.
        num_layers: L.
        num_experts: E.
        half_lives: of the averages, in cells.

    Attributes:
        halves: 1 or 2.
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
        # For each average, the sum of the weights of all cells; for each pair of averages, the
        # sum over all cells of the product of both weights.
        self._weight_A = np.zeros(len(half_lives))
        self._squares_AA = np.zeros((len(half_lives), len(half_lives)))
        # For each average, the discounted sum of log likelihoods.
        self._score_A = np.zeros(len(half_lives))
        # The block not scored yet, and the one before, whose last report may extend into it.
        self._block: _Block | None = None
        self._before: _Block | None = None
        self._earlier_LE: Loads | None = None
        self._report_continues = False
        self._between = deque[float](maxlen=_REMEMBERED)
        # Starts with some values of 1, so that a single shift does not look like dispersion.
        self._spreads = deque([1.0] * (_NEIGHBOURS // 3), _NEIGHBOURS)

    def add(
        self, tokens_HLE: Loads, cells: float, *, ends: bool = True, longest: float = 0.0
    ) -> None:
        """Add the tokens of the next cells, spread evenly over them.

        Args:
            tokens_HLE: float64 [H, L, E], in all these cells together.
            cells: their number, above 0.
            ends: whether all reports in them end with the last cell.
            longest: length in cells of the longest report in them.
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
            self._score(self._block, ends)
            self._block = None

    @property
    def cells(self) -> float:
        """The effective number of cells of equal weight in the mixture; 0 if it is empty."""
        part_A = self._parts()
        squares = float(part_A @ self._squares_AA @ part_A)
        return 1.0 / squares if squares else 0.0

    @property
    def weights(self) -> npt.NDArray[np.float64]:
        """The weight of each average in the mixture; the sum is 1."""
        likely_A = np.exp(self._score_A - self._score_A.max())
        return np.asarray(likely_A / likely_A.sum())

    def rate(self) -> Loads:
        """Tokens per cell, float64 [H, L, E]; zeros before anything was added."""
        return np.tensordot(self._parts(), self._sum_AHLE, axes=1)

    def evidence(self) -> Evidence:
        """The evidence for the rate."""
        cells, rate_HLE = self.cells, self.rate()
        tokens_L = rate_HLE.sum((0, 2)) * cells
        if len(rate_HLE) == 1:
            spread = float(np.median(self._spreads))
            return Evidence(tokens_L, max(1.0, spread / _DRIFT))
        spread = max(self._between[-1], float(np.mean(self._between))) if self._between else 1.0
        return Evidence(tokens_L, spread, rate_HLE)

    def _parts(self) -> npt.NDArray[np.float64]:
        """The factor of each average's sum in the mixture: its weight over the sum's weight."""
        part_A = np.zeros_like(self._weight_A)
        np.divide(self.weights, self._weight_A, out=part_A, where=self._weight_A > 0)
        return part_A

    def _means(self) -> Means | None:
        """The averages now; None before anything was added."""
        if not self._weight_A.any():
            return None
        # In single precision, since two copies are kept, and the last digits do not matter.
        sum_ALE = self._sum_AHLE.sum(1, dtype=np.float32)
        return np.asarray(sum_ALE / self._weight_A.astype(np.float32)[:, None, None])

    def _score(self, block: _Block, ends: bool) -> None:
        """Add the log likelihood that each average gave to the shares of a block to its score.

        An average that contains a part of a report must not be scored on the rest of it. So a block
        that starts within a report is scored with the averages of one block earlier, which contain
        no part of that report.
        """
        before = self._before if self._report_continues else block
        if before is not None and before.means_ALE is not None:
            predicted_ALE = before.means_ALE + np.float32(_UNSEEN / block.tokens_LE.shape[1])
            predicted_ALE /= predicted_ALE.sum(2, keepdims=True)
            likely_A = np.einsum("le,ale->a", block.tokens_LE, np.log(predicted_ALE))
            self._score_A *= _KEPT_SCORE**block.cells
            self._score_A += _TEMPER * likely_A
            # Only differences between scores matter; the largest is kept at 0.
            self._score_A -= self._score_A.max()
        self._measure_spread(block)
        self._report_continues, self._before = not ends, block

    def _measure_spread(self, block: _Block) -> None:
        """Measure the overdispersion, between both halves or between neighbouring blocks."""
        if self.halves == 2:
            self._between.append(overdispersion(*(self.rate() * self.cells)))
            return
        if not self._report_continues and self._before is not None:
            self._spreads.append(overdispersion(self._before.tokens_LE, block.tokens_LE))
        elif self._report_continues and self._earlier_LE is not None:
            self._spreads.append(overdispersion(self._earlier_LE, block.tokens_LE))
        self._earlier_LE = None if self._before is None else self._before.tokens_LE
