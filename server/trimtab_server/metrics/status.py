"""The status of deployments as Prometheus gauges."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry

from trimtab_protocol.messages import SwitchedBy
from trimtab_server.engine.status import Status
from trimtab_server.metrics import deployment_families as families
from trimtab_server.metrics.deployment_gauge import DeploymentGauge, Labels
from trimtab_server.policy.policy import Mode

_MODES = (*(mode.value for mode in Mode), "pinned")
_SWITCHED_BY = tuple(by.value for by in SwitchedBy)
_BALANCES = {
    "predicted": ("predicted", "reports"),
    "predicted_smoothed": ("predicted", "estimate"),
    "measured": ("measured", "reports"),
    "measured_smoothed": ("measured", "estimate"),
    "shadow": ("shadow", "reports"),
    "shadow_smoothed": ("shadow", "estimate"),
}


class StatusMetrics:
    """The series of a deployment exist from its first `update` until `remove`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._live = DeploymentGauge(families.LIVE, registry)
        self._workers = DeploymentGauge(families.WORKERS, registry)
        self._ranks = DeploymentGauge(families.RANKS, registry)
        self._epoch = DeploymentGauge(families.EPOCH, registry)
        self._generation = DeploymentGauge(families.GENERATION, registry)
        self._placement_age = DeploymentGauge(families.PLACEMENT_AGE, registry)
        self._estimate_age = DeploymentGauge(families.ESTIMATE_AGE, registry)
        self._mode = DeploymentGauge(families.MODE, registry)
        self._switched_by = DeploymentGauge(families.SWITCHED_BY, registry)

    def update(self, deployment: str, status: Status) -> None:
        """Show the current status of a deployment."""
        version, absent = status.in_force, status.absent
        connected = len(status.workers) - absent
        self._live.set(deployment, dict(_live(status)))
        self._workers.set(deployment, {("connected",): connected, ("absent",): absent})
        self._ranks.set(deployment, {(name,): n for name, n in status.serving.items()})
        self._epoch.set(deployment, {(): version.epoch if version else 0})
        self._generation.set(deployment, {(): version.generation if version else 0})
        self._placement_age.set(deployment, _if_known(status.in_force_seconds))
        self._estimate_age.set(deployment, _if_known(status.estimate_age))
        by = status.switched_by
        self._switched_by.set(deployment, {(each,): each == by for each in _SWITCHED_BY})
        self._mode.set(deployment, {(mode,): mode == status.mode for mode in _MODES})

    def remove(self, deployment: str) -> None:
        """Remove the series of a deployment."""
        for metric in vars(self).values():
            metric.set(deployment, {})


def _live(status: Status) -> Iterator[tuple[Labels, float]]:
    for name, labels in _BALANCES.items():
        over_layers = getattr(status.balance, name)
        if over_layers is not None:
            for layers in ("worst", "median", "mean"):
                yield (*labels, layers), getattr(over_layers, layers)


def _if_known(seconds: float | None) -> Mapping[Labels, float]:
    return {} if seconds is None else {(): seconds}
