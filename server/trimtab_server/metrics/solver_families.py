"""Metrics of the RPCs, the solver and its queue."""

from __future__ import annotations

from trimtab_server.metrics.family import SECONDS, Family, defined_in

_RATIOS = (1.001, 1.002, 1.005, 1.01, 1.02, 1.05, 1.1, 1.2, 1.5, 2, 3, 5, 10)

RPC_REQUESTS = Family(
    "trimtab_rpc_requests_total{method,code}",
    "RPCs that ended, by method and gRPC status code. A stream that its caller cancels between two "
    "loads may count as OK.",
)
RPC_DURATION = Family(
    "trimtab_rpc_duration_seconds{method}",
    "Time from the start of an RPC to its end; for a stream, its whole life.",
    SECONDS,
)
RPC_IN_FLIGHT = Family("trimtab_rpc_in_flight{method}", "RPCs that the server is working on.")
STREAM_LOADS = Family(
    "trimtab_stream_loads_total{code}",
    "Loads of PlaceStream that were answered, by OK or by the status code of their error.",
)
STAGE_DURATION = Family(
    "trimtab_solver_stage_duration_seconds{stage,backend,effort}",
    "Time of one stage of a solver job on the device.",
    SECONDS,
)
FALLBACKS = Family(
    "trimtab_backend_fallbacks_total{backend,reason}",
    "Requests that the next slower solver backend answered instead of this one, by reason: the "
    "shape is too large for it (shape), its kernels are still compiling (cold), it failed (error), "
    "or it failed a moment ago and is not tried again yet (backoff). Also 1 at start if this "
    "backend cannot run at all (missing).",
)
BACKEND_KINDS = Family(
    "trimtab_backend_kinds{backend,state}",
    "Kinds of request (sizes and settings) by the state of a GPU backend's kernels for them: "
    "ready, compiling, or failing. A failing kind is tried again after a while.",
)
QUEUE_DEPTH = Family("trimtab_queue_depth", "Jobs that are waiting for the solver.")
QUEUE_WAIT = Family(
    "trimtab_queue_wait_seconds",
    "Time that jobs waited for the solver before they started.",
    SECONDS,
)
QUEUE_REJECTED = Family(
    "trimtab_queue_rejected_total{reason}",
    "Jobs that were never started, by reason: the queue was full, the deadline had passed, or the "
    "caller had gone (cancelled).",
)
IMBALANCE = Family(
    "trimtab_imbalance_ratio{when,layers}",
    "Predicted imbalance (heaviest GPU load / mean GPU load) of each load placed: with the current "
    "placement (before) and with the new one (after), of the worst and of the median layer.",
    _RATIOS,
)
IMBALANCE_BOUND = Family(
    "trimtab_imbalance_bound_ratio{layers}",
    "Lower bound on the imbalance of any placement of each load placed, of the worst and of the "
    "median layer. trimtab_imbalance_ratio cannot fall below it.",
    _RATIOS,
)
ITERATIONS = Family(
    "trimtab_solver_iterations_total",
    "Refinement steps, summed over layers and restarts.",
)
SWAPS = Family(
    "trimtab_solver_swaps_total",
    "Refinement swaps applied, summed over layers and restarts.",
)
MOVES = Family(
    "trimtab_moves_total",
    "Expert weights to be copied to another GPU, in all placements that were answered.",
)
DEVICE_INFO = Family(
    "trimtab_device_info{device,name,backend}",
    "Always 1. The labels say what the solver runs on.",
)
BUILD_INFO = Family(
    "trimtab_build_info{version,python,torch}",
    "Always 1. The labels say the versions of the server, Python and torch.",
)

FAMILIES = defined_in(globals())
"""All of these, in the order to show them in."""
