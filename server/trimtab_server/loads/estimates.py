"""Estimates the tokens of each expert per step from the counts of one worker. Pure.

Each worker is averaged over its own steps, so a worker that reports rarely, or late, has the
same weight as the others. Workers of a group step together, so their rates add up.
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

_MIN_STEPS, _MAX_STEPS = 0.01, 1e9
"""Limits of a half-life and of a window, in steps."""

_ADAPTIVE_HALF_LIFE = 16.0
"""Half-life in steps of each worker's estimate if the deployment's load is adaptive: one cell."""

_HALVINGS = 50
"""After so many half-lives a count has no weight left, to the last bit."""

_BUCKETS = 8
"""Buckets of a window: its length is exact to an eighth, and it costs eight arrays per worker."""


@dataclass(frozen=True)
class Smoothing:
    """Over how many steps counts are averaged.

    If both are 0, the steps are adapted to the load: see `LoadMixture`.

    Attributes:
        half_life_steps: after so many steps the weight of a count has halved.
        window_steps: counts of the last so many steps have equal weight, and older ones none.

    Raises:
        InvalidArgumentError: both are above 0, or one is out of range.
    """

    half_life_steps: float = 0.0
    window_steps: float = 0.0

    def __post_init__(self) -> None:
        given, rule = vars(self), f"neither 0 nor in [{_MIN_STEPS}, {_MAX_STEPS:g}]"
        require_all(
            *(
                (steps == 0 or _MIN_STEPS <= steps <= _MAX_STEPS, name, f"{steps} is {rule}")
                for name, steps in given.items()
            )
        )
        both = all(value > 0 for value in given.values())
        require(not both, "half_life_steps", f"only one of {given} may be above 0")

    @property
    def adaptive(self) -> bool:
        """Whether the number of steps is adapted to the load."""
        return not (self.half_life_steps or self.window_steps)

    @property
    def max_steps(self) -> float:
        """The largest number of steps that an estimate can represent."""
        return self.window_steps or _HALVINGS * (self.half_life_steps or _ADAPTIVE_HALF_LIFE)

    def estimate(self, num_layers: int, num_experts: int) -> Estimate:
        """A new, empty estimate for one worker."""
        if self.window_steps:
            return Windowed(self.window_steps, num_layers, num_experts)
        return Decaying(self.half_life_steps or _ADAPTIVE_HALF_LIFE, num_layers, num_experts)


class Estimate(Protocol):
    """An average of one worker's tokens per step."""

    def add(self, tokens_LE: Loads, steps: float) -> None:
        """Add the tokens that were counted in `steps` steps, above 0."""

    def resume(self, rate_LE: Loads, steps: float, effective_steps: float | None) -> None:
        """Continue from the values of another estimate of any kind; called before `add`.

        Args:
            rate_LE: its tokens per step, [L, E].
            steps: its `steps`.
            effective_steps: its `effective_steps`; None if unknown.
        """

    def rate(self) -> Loads:
        """Tokens per step, float64 [L, E]; zeros before anything was added."""

    @property
    def steps(self) -> float:
        """How many steps it represents: so many steps at this rate would give the same estimate."""

    @property
    def effective_steps(self) -> float:
        """How many steps of equal weight would give a mean of the same variance: Kish's rule."""


class Decaying:
    """An exponential average; the tokens of a report are spread evenly over its steps."""

    def __init__(self, half_life: float, num_layers: int, num_experts: int) -> None:
        self._half_life = half_life
        self._sum_LE = np.zeros((num_layers, num_experts))
        self._weight = 0.0
        # The sum of the squared weights of all steps.
        self._squares = 0.0

    def add(self, tokens_LE: Loads, steps: float) -> None:
        """See `Estimate`."""
        keep = 2.0 ** (-steps / self._half_life)
        self._sum_LE *= keep
        self._sum_LE += tokens_LE * ((1.0 - keep) / steps)
        self._weight = self._weight * keep + 1.0 - keep
        self._squares = self._squares * keep**2 + (1.0 - keep) ** 2 / steps

    def resume(self, rate_LE: Loads, steps: float, effective_steps: float | None) -> None:
        """See `Estimate`."""
        self.add(rate_LE * steps, steps)
        if effective_steps is None:
            # The value for steps that were added one by one.
            effective_steps = min(steps, 2 / math.log(2) * self._half_life)
        self._squares = self._weight**2 / effective_steps

    def rate(self) -> Loads:
        """See `Estimate`."""
        return self._sum_LE / self._weight if self._weight else self._sum_LE.copy()

    @property
    def steps(self) -> float:
        """See `Estimate`."""
        # After so many half-lives, older counts have no weight left, to the last bit.
        lowest = 2.0**-_HALVINGS
        return -self._half_life * float(np.log2(max(1.0 - self._weight, lowest)))

    @property
    def effective_steps(self) -> float:
        """See `Estimate`."""
        return self._weight**2 / self._squares if self._squares else 0.0


class Windowed:
    """The mean over the last steps, which are kept in buckets."""

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

    def resume(self, rate_LE: Loads, steps: float, effective_steps: float | None) -> None:
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
