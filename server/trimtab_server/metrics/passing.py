"""Series of a deployment that come and go."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import Gauge

Labels = tuple[str, ...]


class Passing:
    """A gauge whose first label is the deployment: what is not shown is not there."""

    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge
        self._shown: dict[str, set[Labels]] = {}

    def show(self, deployment: str, values: Mapping[Labels, float]) -> None:
        """These, by their further labels, and no others of the deployment."""
        for labels in self._shown.pop(deployment, set()) - values.keys():
            self._gauge.remove(deployment, *labels)
        for labels, value in values.items():
            self._gauge.labels(deployment, *labels).set(value)
        if values:
            self._shown[deployment] = set(values)
