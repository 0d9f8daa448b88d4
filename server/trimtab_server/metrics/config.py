"""Settings of the metrics endpoint."""

from __future__ import annotations

from dataclasses import dataclass

from trimtab_server.setting import between, host_and_port, setting

OFF = "off"


def _rule(address: str) -> str | None:
    complaint = None if address == OFF else host_and_port(address)
    return complaint and f"{complaint}, or off"


@dataclass(frozen=True)
class MetricsConfig:
    """Metrics."""

    metrics_listen: str = setting(
        "127.0.0.1:9464",
        "Where /metrics, /healthz and /readyz are served over HTTP: host:port, or off. With port "
        "0, the system chooses the port.",
        unit="address",
        rule=_rule,
    )
    max_deployment_series: int = setting(
        256,
        "Maximum number of deployments that have series of their own in /metrics. The others are "
        "only counted, by trimtab_deployments_without_metrics, until one that has series is gone.",
        unit="deployments",
        rule=between(0, 1 << 20),
    )
