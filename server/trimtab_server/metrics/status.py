"""How deployments are, as Prometheus gauges."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry

from trimtab_server.engine.status import Status
from trimtab_server.metrics import families, series
from trimtab_server.metrics.passing import Labels, Passing
from trimtab_server.policy.policy import Mode

_MODES = (*(mode.value for mode in Mode), "pinned")
_OUTLOOKS = {
    "predicted": ("predicted", "reports"),
    "predicted_smoothed": ("predicted", "estimate"),
    "measured": ("measured", "reports"),
    "measured_smoothed": ("measured", "estimate"),
    "shadow": ("shadow", "reports"),
    "shadow_smoothed": ("shadow", "estimate"),
}


class StatusMetrics:
    """The series of a deployment begin when it is first looked at, and end with it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(family: families.Family) -> Passing:
            return Passing(series.gauge(family, registry))

        self._live = gauge(families.LIVE)
        self._workers = gauge(families.WORKERS)
        self._ranks = gauge(families.RANKS)
        self._epoch = gauge(families.EPOCH)
        self._generation = gauge(families.GENERATION)
        self._placement_age = gauge(families.PLACEMENT_AGE)
        self._estimate_age = gauge(families.ESTIMATE_AGE)
        self._mode = gauge(families.MODE)

    def looked(self, deployment: str, status: Status) -> None:
        """A deployment is so now."""
        version, absent = status.in_force, status.absent
        connected = len(status.workers) - absent
        self._live.show(deployment, dict(_live(status)))
        self._workers.show(deployment, {("connected",): connected, ("absent",): absent})
        self._ranks.show(deployment, {(name,): n for name, n in status.serving.items()})
        self._epoch.show(deployment, {(): version.epoch if version else 0})
        self._generation.show(deployment, {(): version.generation if version else 0})
        self._placement_age.show(deployment, _known(status.in_force_seconds))
        self._estimate_age.show(deployment, _known(status.estimate_age))
        self._mode.show(deployment, {(mode,): mode == status.mode for mode in _MODES})

    def gone(self, deployment: str) -> None:
        """A deployment is no more."""
        for metric in vars(self).values():
            metric.show(deployment, {})


def _live(status: Status) -> Iterator[tuple[Labels, float]]:
    for name, labels in _OUTLOOKS.items():
        over_layers = getattr(status.outlook, name)
        if over_layers is not None:
            for layers in ("worst", "median", "mean"):
                yield (*labels, layers), getattr(over_layers, layers)


def _known(seconds: float | None) -> Mapping[Labels, float]:
    return {} if seconds is None else {(): seconds}
