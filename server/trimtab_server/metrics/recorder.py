"""Prometheus metrics of the solver, its queue, and the RPCs."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from functools import partial

import prometheus_client
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

from trimtab_server.engine.observer import Observer, Rejection, When
from trimtab_server.metrics import series
from trimtab_server.metrics import solver_families as families


class Recorder(Observer):
    """Implements the part of `Observer` that is about the solver and about calls.

    Attributes:
        registry: has all series of this recorder, and those of the process, the Python runtime
            and its garbage collector.
    """

    def __init__(self) -> None:
        # Nobody needs the creation time of a counter, which would be another series each.
        prometheus_client.disable_created_metrics()
        self.registry = registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=registry)
        self._requests = series.counter(families.RPC_REQUESTS, registry)
        self._duration = series.histogram(families.RPC_DURATION, registry)
        self._in_flight = series.gauge(families.RPC_IN_FLIGHT, registry)
        self._loads = series.counter(families.STREAM_LOADS, registry)
        self._stage = series.histogram(families.STAGE_DURATION, registry)
        self._fallbacks = series.counter(families.FALLBACKS, registry)
        self._kinds = series.gauge(families.BACKEND_KINDS, registry)
        self._depth = series.gauge(families.QUEUE_DEPTH, registry)
        self._wait = series.histogram(families.QUEUE_WAIT, registry)
        self._rejected = series.counter(families.QUEUE_REJECTED, registry)
        self._imbalance = series.histogram(families.IMBALANCE, registry)
        self._bound = series.histogram(families.IMBALANCE_BOUND, registry)
        self._iterations = series.counter(families.ITERATIONS, registry)
        self._swaps = series.counter(families.SWAPS, registry)
        self._moves = series.counter(families.MOVES, registry)
        self._device = series.gauge(families.DEVICE_INFO, registry)
        self._build = series.gauge(families.BUILD_INFO, registry)

    def call_started(self, method: str) -> None:
        """See `Observer`."""
        self._in_flight.labels(method).inc()

    def call_ended(self, method: str, code: str, seconds: float) -> None:
        """See `Observer`."""
        self._in_flight.labels(method).dec()
        self._requests.labels(method, code).inc()
        self._duration.labels(method).observe(seconds)

    def load_answered(self, code: str) -> None:
        """See `Observer`."""
        self._loads.labels(code).inc()

    def queue_depth(self, waiting: int) -> None:
        """See `Observer`."""
        self._depth.set(waiting)

    def queue_waited(self, seconds: float) -> None:
        """See `Observer`."""
        self._wait.observe(seconds)

    def queue_rejected(self, reason: Rejection) -> None:
        """See `Observer`."""
        self._rejected.labels(reason).inc()

    def stage(self, stage: str, backend: str, effort: str, seconds: float) -> None:
        """See `Observer`."""
        self._stage.labels(stage, backend, effort).observe(seconds)

    def fallback(self, backend: str, reason: str) -> None:
        """See `Observer`."""
        self._fallbacks.labels(backend, reason).inc()

    def solved(self, iterations: int, swaps: int) -> None:
        """See `Observer`."""
        self._iterations.inc(iterations)
        self._swaps.inc(swaps)

    def imbalance(self, when: When, worst: float, median: float) -> None:
        """See `Observer`."""
        self._imbalance.labels(when, "worst").observe(worst)
        self._imbalance.labels(when, "median").observe(median)

    def imbalance_bound(self, worst: float, median: float) -> None:
        """See `Observer`."""
        self._bound.labels("worst").observe(worst)
        self._bound.labels("median").observe(median)

    def moves_planned(self, moves: int) -> None:
        """See `Observer`."""
        self._moves.inc(moves)

    def follow_kinds(self, backend: str, kinds: Callable[[], Mapping[str, int]]) -> None:
        """At each scrape, call `kinds` for the number of kinds of request in each state."""
        for state in kinds():
            self._kinds.labels(backend, state).set_function(partial(_count, kinds, state))

    def runs_on(self, device: str, name: str, backend: str) -> None:
        """Record what the solver runs on."""
        self._device.labels(device, name, backend).set(1)

    def built_from(self, version: str, torch: str) -> None:
        """Record the versions of the server and of torch."""
        self._build.labels(version, platform.python_version(), torch).set(1)


def _count(kinds: Callable[[], Mapping[str, int]], state: str) -> float:
    return kinds()[state]
