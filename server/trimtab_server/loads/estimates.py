"""How many tokens each expert gets a step, from what one worker has counted. Pure.

Each worker is averaged over its own steps, so that one that reports seldom, or late, weighs
no less than another. Workers of a group step together: their rates add up.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from trimtab_server.domain.errors import require, require_all

Loads = npt.NDArray[np.float64]

_LEAST, _MOST = 0.01, 1e9
"""Steps: of a half-life or a window."""

_HALVINGS = 50
"""After so many half-lives nothing of a count is left, to the last bit."""

_BUCKETS = 8
"""Of a window: it is right to an eighth of its length, and costs eight arrays a worker."""


@dataclass(frozen=True)
class Smoothing:
    """Over how many steps counts are averaged.

    Attributes:
        half_life_steps: after so many steps a count weighs half; 0: a window instead.
        window_steps: counts of so many steps weigh the same, and older ones nothing.

    Raises:
        InvalidArgumentError: not exactly one of them is above 0.
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
        one = sum(value > 0 for value in given.values()) == 1
        require(one, "half_life_steps", f"exactly one of {given} has to be above 0")

    @property
    def most_steps(self) -> float:
        """For how many steps an estimate can stand."""
        return self.window_steps or _HALVINGS * self.half_life_steps

    def estimate(self, num_layers: int, num_experts: int) -> Estimate:
        """One that has seen nothing yet."""
        if self.half_life_steps:
            return Decaying(self.half_life_steps, num_layers, num_experts)
        return Windowed(self.window_steps, num_layers, num_experts)


class Estimate(Protocol):
    """One worker's tokens a step."""

    def add(self, tokens_LE: Loads, steps: float) -> None:
        """Take what was counted in so many steps, above 0."""

    def rate(self) -> Loads:
        """Tokens a step, float64 [L, E]; zeros before anything was added."""

    @property
    def steps(self) -> float:
        """How many steps it stands for: of as many, at this rate, the same one would come."""


class Decaying:
    """An exponential average: a span of steps counts as if its tokens were spread evenly."""

    def __init__(self, half_life: float, num_layers: int, num_experts: int) -> None:
        self._half_life = half_life
        self._sum_LE = np.zeros((num_layers, num_experts))
        self._weight = 0.0

    def add(self, tokens_LE: Loads, steps: float) -> None:
        """See `Estimate`."""
        keep = 2.0 ** (-steps / self._half_life)
        self._sum_LE *= keep
        self._sum_LE += tokens_LE * ((1.0 - keep) / steps)
        self._weight = self._weight * keep + 1.0 - keep

    def rate(self) -> Loads:
        """See `Estimate`."""
        return self._sum_LE / self._weight if self._weight else self._sum_LE.copy()

    @property
    def steps(self) -> float:
        """See `Estimate`."""
        # Beyond so many half-lives nothing is left of what was before, to the last bit.
        least = 2.0**-_HALVINGS
        return -self._half_life * float(np.log2(max(1.0 - self._weight, least)))


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
