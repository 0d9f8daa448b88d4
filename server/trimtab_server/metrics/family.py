"""How a metric is described: its name, type, labels and meaning."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
"""Buckets of durations."""


@dataclass(frozen=True)
class Family:
    """A metric, as the documentation shows it.

    Attributes:
        signature: its name, followed by the names of its labels in braces, if it has any.
        help: its meaning, for readers of a dashboard.
        buckets: upper bounds of a histogram's buckets; empty for other metrics.
    """

    signature: str
    help: str
    buckets: tuple[float, ...] = ()

    @property
    def name(self) -> str:
        """The name of the metric."""
        return self.signature.partition("{")[0]

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of its labels."""
        return tuple(re.findall(r"[{,](\w+)", self.signature))

    @property
    def kind(self) -> Literal["counter", "gauge", "histogram"]:
        """The type of the metric, which also shows in its name or its buckets."""
        if self.name.endswith("_total"):
            return "counter"
        return "histogram" if self.buckets else "gauge"


def defined_in(module: dict[str, object]) -> tuple[Family, ...]:
    """All families among a module's variables, in order of their definition."""
    return tuple(value for value in module.values() if isinstance(value, Family))
