"""All metrics of Trimtab's own: names, types, labels and meanings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_RATIOS = (1.001, 1.002, 1.005, 1.01, 1.02, 1.05, 1.1, 1.2, 1.5, 2, 3, 5, 10)


@dataclass(frozen=True)
class Family:
    """A metric as the documentation shows it. `buckets` are upper bounds, of a histogram."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] = ()


RPC_REQUESTS = Family(
    "trimtab_rpc_requests_total",
    "counter",
    ("method", "code"),
    "Calls that ended, by method and gRPC status code. A stream that its caller cancels "
    "between two loads may count as OK.",
)
RPC_DURATION = Family(
    "trimtab_rpc_duration_seconds",
    "histogram",
    ("method",),
    "Time from the start of a call to its end; for a stream, its whole life.",
    _SECONDS,
)
RPC_IN_FLIGHT = Family("trimtab_rpc_in_flight", "gauge", ("method",), "Calls being carried out.")
STREAM_LOADS = Family(
    "trimtab_stream_loads_total",
    "counter",
    ("code",),
    "Loads of PlaceStream that were answered, by OK or the code of their error.",
)
STAGE_DURATION = Family(
    "trimtab_solver_stage_duration_seconds",
    "histogram",
    ("stage", "backend", "effort"),
    "Time of one stage of a solver job on the device.",
    _SECONDS,
)
FALLBACKS = Family(
    "trimtab_backend_fallbacks_total",
    "counter",
    ("backend", "reason"),
    "Times that work went to the next best backend: once at start where this one cannot run "
    "(missing); and for each request that is beyond it (shape), that its kernels are still "
    "being compiled for (cold), or that it failed at (error).",
)
QUEUE_DEPTH = Family("trimtab_queue_depth", "gauge", (), "Jobs that wait for the solver.")
QUEUE_WAIT = Family(
    "trimtab_queue_wait_seconds",
    "histogram",
    (),
    "Time that jobs waited for the solver before they started.",
    _SECONDS,
)
QUEUE_REJECTED = Family(
    "trimtab_queue_rejected_total",
    "counter",
    ("reason",),
    "Jobs never started: queue full, deadline passed or caller gone (cancelled).",
)
IMBALANCE = Family(
    "trimtab_imbalance_ratio",
    "histogram",
    ("when", "layers"),
    "Heaviest GPU load / mean GPU load, predicted, with the current placement (before) and "
    "the one answered (after): worst and median layer of each load.",
    _RATIOS,
)
IMBALANCE_BOUND = Family(
    "trimtab_imbalance_bound_ratio",
    "histogram",
    ("layers",),
    "Lower bound on the imbalance of any placement, of the worst and the median layer of each "
    "load: what trimtab_imbalance_ratio could come down to at best.",
    _RATIOS,
)
ITERATIONS = Family(
    "trimtab_solver_iterations_total",
    "counter",
    (),
    "Refinement steps, summed over layers and restarts.",
)
SWAPS = Family(
    "trimtab_solver_swaps_total",
    "counter",
    (),
    "Refinement swaps applied, summed over layers and restarts.",
)
MOVES = Family(
    "trimtab_moves_total",
    "counter",
    (),
    "Expert weight copies that the placements answered ask for.",
)
DEVICE_INFO = Family(
    "trimtab_device_info",
    "gauge",
    ("device", "name", "backend"),
    "Always 1; what the solver runs on.",
)
BUILD_INFO = Family(
    "trimtab_build_info",
    "gauge",
    ("version", "python", "torch"),
    "Always 1; versions of the server and of what it runs on.",
)
FAMILIES = (
    RPC_REQUESTS,
    RPC_DURATION,
    RPC_IN_FLIGHT,
    STREAM_LOADS,
    STAGE_DURATION,
    FALLBACKS,
    QUEUE_DEPTH,
    QUEUE_WAIT,
    QUEUE_REJECTED,
    IMBALANCE,
    IMBALANCE_BOUND,
    ITERATIONS,
    SWAPS,
    MOVES,
    DEVICE_INFO,
    BUILD_INFO,
)
"""All of them, in the order to show them in."""
