"""How a metric is described: its name, type, labels and meaning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
"""Buckets of durations."""


@dataclass(frozen=True)
class Family:
    """A metric, as the documentation shows it.

    Attributes:
        name: of the metric.
        kind: type of the metric.
        labels: names of its labels.
        help: its meaning, for readers of a dashboard.
        buckets: upper bounds of a histogram's buckets.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] = ()


def defined_in(module: dict[str, object]) -> tuple[Family, ...]:
    """All families among a module's variables, in order of their definition."""
    return tuple(value for value in module.values() if isinstance(value, Family))
