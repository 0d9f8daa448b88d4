"""Gauges whose series come and go with a deployment."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry

from trimtab_server.metrics import series
from trimtab_server.metrics.family import Family

Labels = tuple[str, ...]


class DeploymentGauge:
    """A gauge whose first label is the deployment. A series exists only while it is set."""

    def __init__(self, family: Family, registry: CollectorRegistry) -> None:
        self._gauge = series.gauge(family, registry)
        self._series: dict[str, set[Labels]] = {}

    def set(self, deployment: str, values: Mapping[Labels, float]) -> None:
        """Set the series of a deployment, by their other labels, and remove its other series."""
        for labels in self._series.pop(deployment, set()) - values.keys():
            self._gauge.remove(deployment, *labels)
        for labels, value in values.items():
            self._gauge.labels(deployment, *labels).set(value)
        if values:
            self._series[deployment] = set(values)
