"""How many tokens each expert gets a step, from what one worker has counted. Pure.

Each worker is averaged over its own steps, so that one that reports seldom, or late, weighs
no less than another. Workers of a group step together: their rates add up.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from trimtab_server.domain.errors import require, require_all

Loads = npt.NDArray[np.float64]

_LEAST, _MOST = 0.01, 1e9
"""Steps: of a half-life or a window."""

_BRIEF = 16.0
"""Half-life in steps of what one worker is known by, where the deployment's load is adaptive."""

_HALVINGS = 50
"""After so many half-lives nothing of a count is left, to the last bit."""

_BUCKETS = 8
"""Of a window: it is right to an eighth of its length, and costs eight arrays a worker."""


@dataclass(frozen=True)
class Smoothing:
    """Over how many steps counts are averaged.

    Attributes:
        half_life_steps: after so many steps a count weighs half.
        window_steps: counts of so many steps weigh the same, and older ones nothing. Both 0: over
            as many as have foretold the load best, see `Memory`.

    Raises:
        InvalidArgumentError: both are above 0, or one is out of range.
    """

    half_life_steps: float = 0.0
    window_steps: float = 0.0

    def __post_init__(self) -> None:
        given = {"half_life_steps": self.half_life_steps, "window_steps": self.window_steps}
        require_all(
            *(
                (
                    value == 0 or _LEAST <= value <= _MOST,
                    name,
                    f"{value} is neither 0 nor in [{_LEAST}, {_MOST:g}]",
                )
                for name, value in given.items()
            )
        )
        both = all(value > 0 for value in given.values())
        require(not both, "half_life_steps", f"only one of {given} may be above 0")

    @property
    def adaptive(self) -> bool:
        """Whether the steps follow from the load."""
        return not (self.half_life_steps or self.window_steps)

    @property
    def most_steps(self) -> float:
        """For how many steps an estimate can stand."""
        return self.window_steps or _HALVINGS * (self.half_life_steps or _BRIEF)

    def estimate(self, num_layers: int, num_experts: int) -> Estimate:
        """Of one worker, which has seen nothing yet."""
        if self.window_steps:
            return Windowed(self.window_steps, num_layers, num_experts)
        return Decaying(self.half_life_steps or _BRIEF, num_layers, num_experts)


class Estimate(Protocol):
    """One worker's tokens a step."""

    def add(self, tokens_LE: Loads, steps: float) -> None:
        """Take what was counted in so many steps, above 0."""

    def go_on(self, rate_LE: Loads, steps: float, effective_steps: float | None) -> None:
        """As another one that had come to this, of the same kind or not; before all else.

        Args:
            rate_LE: tokens a step, [L, E].
            steps: that it stood for.
            effective_steps: that it was sure of; None: not known.
        """

    def rate(self) -> Loads:
        """Tokens a step, float64 [L, E]; zeros before anything was added."""

    @property
    def steps(self) -> float:
        """How many steps it stands for: of as many, at this rate, the same one would come."""

    @property
    def effective_steps(self) -> float:
        """Of how many steps of equal weight the mean would be as sure: Kish's rule."""


class Decaying:
    """An exponential average: a span of steps counts as if its tokens were spread evenly."""

    def __init__(self, half_life: float, num_layers: int, num_experts: int) -> None:
        self._half_life = half_life
        self._sum_LE = np.zeros((num_layers, num_experts))
        self._weight = 0.0
        # Of the weights of all steps, the sum of squares.
        self._squares = 0.0

    def add(self, tokens_LE: Loads, steps: float) -> None:
        """See `Estimate`."""
        keep = 2.0 ** (-steps / self._half_life)
        self._sum_LE *= keep
        self._sum_LE += tokens_LE * ((1.0 - keep) / steps)
        self._weight = self._weight * keep + 1.0 - keep
        self._squares = self._squares * keep**2 + (1.0 - keep) ** 2 / steps

    def go_on(self, rate_LE: Loads, steps: float, effective_steps: float | None) -> None:
        """See `Estimate`."""
        self.add(rate_LE * steps, steps)
        if effective_steps is None:
            # Of steps that came one by one.
            effective_steps = min(steps, 2 / math.log(2) * self._half_life)
        self._squares = self._weight**2 / effective_steps

    def rate(self) -> Loads:
        """See `Estimate`."""
        return self._sum_LE / self._weight if self._weight else self._sum_LE.copy()

    @property
    def steps(self) -> float:
        """See `Estimate`."""
        # Beyond so many half-lives nothing is left of what was before, to the last bit.
        least = 2.0**-_HALVINGS
        return -self._half_life * float(np.log2(max(1.0 - self._weight, least)))

    @property
    def effective_steps(self) -> float:
        """See `Estimate`."""
        return self._weight**2 / self._squares if self._squares else 0.0


class Windowed:
    """The mean over the last steps, in buckets."""

    def __init__(self, window: float, num_layers: int, num_experts: int) -> None:
        self._window = window
        self._none_LE = np.zeros((num_layers, num_experts))
        self._buckets: deque[tuple[float, Loads]] = deque()

    def add(self, tokens_LE: Loads, steps: float) -> None:
        """See `Estimate`."""
        if self._buckets and self._buckets[-1][0] + steps <= self._window / _BUCKETS:
            before, sum_LE = self._buckets.pop()
            steps, tokens_LE = before + steps, sum_LE + tokens_LE
        self._buckets.append((steps, np.array(tokens_LE, np.float64)))
        while self.steps - self._buckets[0][0] >= self._window:
            self._buckets.popleft()

    def go_on(self, rate_LE: Loads, steps: float, effective_steps: float | None) -> None:
        """See `Estimate`."""
        sure = steps if effective_steps is None else effective_steps
        self.add(rate_LE * sure, sure)

    def rate(self) -> Loads:
        """See `Estimate`."""
        if not self._buckets:
            return self._none_LE.copy()
        total_LE: Loads = np.sum([tokens_LE for _, tokens_LE in self._buckets], axis=0)
        return total_LE / self.steps

    @property
    def steps(self) -> float:
        """See `Estimate`."""
        return sum(steps for steps, _ in self._buckets)

    @property
    def effective_steps(self) -> float:
        """See `Estimate`."""
        return self.steps
