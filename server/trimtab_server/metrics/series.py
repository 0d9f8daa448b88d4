"""Creates Prometheus metrics from their descriptions."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from trimtab_server.metrics.family import Family


def counter(family: Family, registry: CollectorRegistry) -> Counter:
    """A counter in `registry`."""
    return Counter(family.name, family.help, family.labels, registry=registry)


def gauge(family: Family, registry: CollectorRegistry) -> Gauge:
    """A gauge in `registry`."""
    return Gauge(family.name, family.help, family.labels, registry=registry)


def histogram(family: Family, registry: CollectorRegistry) -> Histogram:
    """A histogram in `registry`."""
    return Histogram(
        family.name, family.help, family.labels, registry=registry, buckets=family.buckets
    )
