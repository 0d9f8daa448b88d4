"""Settings of the packing, and the presets from which users choose."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from trimtab_server.domain.errors import require, require_all, store_integers

Effort = Literal["fast", "balanced"]
Objective = Literal["l2", "range"]

DEFAULT_EFFORT: Effort = "balanced"


@dataclass(frozen=True)
class Settings:
    """How much work to spend on packing. See `balanced_packing`.

    Attributes:
        top_k: K, the number of heaviest and of lightest packs in each refinement step.
        max_iterations: refinement steps allowed in each row; None to converge.
        restarts: starts, of which the best is kept; start 0 has no noise.
        objective: "l2", or "range" for the heaviest and the lightest pack alone.
        seed: of the starts' noise, any integer, used modulo 2**64.
        tolerance: a row is done when max - min is at most this share of the
            mean pack weight.
    """

    top_k: int = 4
    max_iterations: int | None = 20
    restarts: int = 1
    objective: Objective = "l2"
    seed: int = 0
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        store_integers(self, top_k=self.top_k, restarts=self.restarts, seed=self.seed)
        if self.max_iterations is not None:
            store_integers(self, max_iterations=self.max_iterations)
        iterations, objectives = self.max_iterations, get_args(Objective)
        below_0 = f"{iterations} is below 0 (None refines to convergence)"
        unknown = f"{self.objective!r} is not one of {objectives}"
        require_all(
            (self.top_k >= 1, "top_k", f"{self.top_k} is below 1"),
            (self.restarts >= 1, "restarts", f"{self.restarts} is below 1"),
            (iterations is None or iterations >= 0, "max_iterations", below_0),
            (self.objective in objectives, "objective", unknown),
            (0 <= self.tolerance < float("inf"), "tolerance", f"{self.tolerance} is not >= 0"),
        )


# Balancedness in `make bench ARGS=presets`, as mean (worst layer) over 58 layers of 256
# realistic loads, refined to convergence unless a number of steps is given:
#
#     K  restarts         288 slots on 32 GPUs   288 slots on 72 GPUs
#     4         1, 20     0.9989 (0.9982)        0.9824 (0.9660)
#     4         8         0.9997 (0.9996)        0.9973 (0.9962)
#     8         4         0.9998 (0.9996)        0.9980 (0.9965)
#     16        4         0.9998 (0.9996)        0.9985 (0.9976)
#     16        8         0.9998 (0.9997)        0.9987 (0.9981)
#
# The first row is `fast`. `balanced` is the row after which twice the work gains little.
_PRESETS: dict[Effort, Settings] = {
    "fast": Settings(top_k=4, max_iterations=20, restarts=1),
    "balanced": Settings(top_k=16, max_iterations=None, restarts=4),
}


def settings_for(effort: Effort, *, seed: int = 0, **overrides: Any) -> Settings:
    """The settings of `effort`; `overrides` replaces fields of `Settings`."""
    require(effort in tuple(_PRESETS), "effort", f"{effort!r} is not one of {tuple(_PRESETS)}")
    return replace(_PRESETS[effort], seed=seed, **overrides)
