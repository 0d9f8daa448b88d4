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
    "being compiled for (cold), that it failed at (error), or that came too early after a "
    "failure for another attempt (backoff).",
)
BACKEND_KINDS = Family(
    "trimtab_backend_kinds",
    "gauge",
    ("backend", "state"),
    "Kinds of request (sizes and settings) that a GPU backend is ready for, is compiling kernels "
    "for, or failed at when it last tried (failing); it tries again after a while.",
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
SESSIONS = Family(
    "trimtab_sessions", "gauge", ("deployment",), "Sessions of workers that are open."
)
MESSAGES = Family(
    "trimtab_session_messages_total",
    "counter",
    ("kind",),
    "Messages of workers that were read, by their kind.",
)
DELAYED = Family(
    "trimtab_session_messages_delayed_total",
    "counter",
    ("deployment",),
    "Messages of workers that were left unread for a while, because their worker sends more "
    "than messages_per_second.",
)
REPORTS = Family(
    "trimtab_reports_total",
    "counter",
    ("deployment", "result"),
    "Reports of workers: counted (accepted); known to be of no known time (gap); counted "
    "before (repeated); or with counts or steps that run backwards, or of another shape (refused).",
)
IGNORED = Family(
    "trimtab_answers_ignored_total",
    "counter",
    ("deployment",),
    "Answers of workers to what the server does not wait for: late, or of another version or "
    "digest.",
)
SWITCHES = Family(
    "trimtab_switches_total",
    "counter",
    ("deployment", "outcome"),
    "Switches that have come so far: offered, committed, applied by all workers, or aborted.",
)
ABORTS = Family(
    "trimtab_switch_aborts_total",
    "counter",
    ("deployment", "cause"),
    "Switches that were aborted: by a worker (refused), not prepared in time (late), a session "
    "lost, the deployment paused, the server's drain or restart.",
)
PHASE = Family(
    "trimtab_switch_phase",
    "gauge",
    ("deployment", "phase"),
    "1 for the phase that the switch is in: offered, committed, aborting, or idle where none is "
    "open; 0 for the others.",
)
AGE = Family(
    "trimtab_switch_phase_age_seconds",
    "gauge",
    ("deployment",),
    "Time for which the open switch has been in its phase; 0 where none is open. An engine that "
    "takes no steps does not flip, so a committed switch may be old.",
)
PAUSED = Family(
    "trimtab_deployment_paused",
    "gauge",
    ("deployment",),
    "1 where nothing is offered until an operator resumes; else 0.",
)
ALARMS = Family(
    "trimtab_alarms_total",
    "counter",
    ("deployment",),
    "Times that a person should have looked: the log says at what, as alarm.",
)
STORE_FAILURES = Family(
    "trimtab_store_failures_total",
    "counter",
    (),
    "Times that the store failed. Sessions end with it, unless only counts were not saved.",
)
DECISIONS = Family(
    "trimtab_decisions_total",
    "counter",
    ("deployment", "reason"),
    "Decisions of the online loop. Experts move: by the best few moves (improved), or to a new "
    "plan, as the load has shifted (replanned). They stay: not_ready, too_soon, no_load, "
    "not_enough_evidence, cooldown, balanced, small_gain, too_costly.",
)
PREDICTED = Family(
    "trimtab_predicted_imbalance_ratio",
    "gauge",
    ("deployment", "of"),
    "Mean over layers with load of heaviest GPU / mean GPU that the load estimate predicts, as of "
    "the last decision: of the placement in force (in shadow mode: that would be), and of the one "
    "that was planned, the same where none was; 0 before the first.",
)
EVIDENCE = Family(
    "trimtab_evidence_tokens",
    "gauge",
    ("deployment",),
    "Tokens that the load estimate remembers of a layer, in effect, as of the last decision that "
    "had a load: of the median layer.",
)
OVERDISPERSION = Family(
    "trimtab_overdispersion_ratio",
    "gauge",
    ("deployment",),
    "Variance of the counts by that of independent tokens, as of the last decision that had a "
    "load.",
)
NOISE = Family(
    "trimtab_noise_imbalance_ratio",
    "gauge",
    ("deployment",),
    "Imbalance that noise alone may look like, mean over layers with load, as of the last decision "
    "that had a load: nothing moves for less.",
)
DISTRUST = Family(
    "trimtab_distrust_ratio",
    "gauge",
    ("deployment",),
    "How many times as much moves have to gain, since switches have not kept what they promised; "
    "1: they have.",
)
SWITCH_GAIN = Family(
    "trimtab_switch_gain_ratio",
    "gauge",
    ("deployment", "as"),
    "Fall of the sum of squared GPU loads, where their mean is 1, mean over the layers that "
    "changed, of the last switch that could be judged: as promised, and as realised by what was "
    "counted afterwards.",
)
LIVE = Family(
    "trimtab_live_imbalance_ratio",
    "gauge",
    ("deployment", "of", "over", "layers"),
    "Heaviest GPU / mean GPU with the placement in force: as the load predicts it, as the GPUs "
    "have had it (measured; only where workers count what their slots process), or as it would be "
    "had shadow mode's decisions been carried out (shadow). Over the last reports or the load "
    "estimate; of the worst and the median layer, and the mean. Not there while nobody can say.",
)
WORKERS = Family(
    "trimtab_workers",
    "gauge",
    ("deployment", "state"),
    "Workers of the group that have a session (connected) or none (absent). What those who are "
    "absent reported last counts on.",
)
RANKS = Family(
    "trimtab_ranks",
    "gauge",
    ("deployment", "serving"),
    "Connected workers that serve by what is in force (in_force), by what the open switch leads "
    "to (next), or by anything else (other).",
)
EPOCH = Family(
    "trimtab_placement_epoch",
    "gauge",
    ("deployment",),
    "Epoch of the placement in force: a group each. 0 before the first.",
)
GENERATION = Family(
    "trimtab_placement_generation",
    "gauge",
    ("deployment",),
    "Generation of the placement in force: 0 is what the group came with.",
)
PLACEMENT_AGE = Family(
    "trimtab_placement_age_seconds",
    "gauge",
    ("deployment",),
    "Time for which the placement in force has been; not there where that is longer than the "
    "server runs.",
)
ESTIMATE_AGE = Family(
    "trimtab_estimate_age_seconds",
    "gauge",
    ("deployment",),
    "Time since the report of the worker that has been silent for longest; not there before all "
    "have reported.",
)
MODE = Family(
    "trimtab_deployment_mode",
    "gauge",
    ("deployment", "mode"),
    "1 for what the deployment does by itself: off, shadow, active, or staying where it is pinned; "
    "0 for the others.",
)
PAUSED_FOR = Family(
    "trimtab_deployment_paused_info",
    "gauge",
    ("deployment", "reason"),
    "1 while it is paused, with the first 100 characters of why; else not there.",
)
MISMATCHES = Family(
    "trimtab_digest_mismatches_total",
    "counter",
    ("deployment",),
    "Times that workers served by, or flipped to, another placement than they should have.",
)
APPLIED_MOVES = Family(
    "trimtab_applied_moves_total",
    "counter",
    ("deployment",),
    "Expert weights that went to other GPUs in switches that were applied.",
)
APPLIED_BYTES = Family(
    "trimtab_applied_bytes_total",
    "counter",
    ("deployment",),
    "Bytes of these, by the size of an expert that workers say.",
)
PHASE_DURATION = Family(
    "trimtab_switch_phase_duration_seconds",
    "histogram",
    ("phase",),
    "Time that switches of all deployments spent offered, committed or aborting.",
    (*_SECONDS, 60, 120, 600),
)
DECISION_DURATION = Family(
    "trimtab_decision_duration_seconds",
    "histogram",
    (),
    "Time of a decision for which something was planned, waiting for the solver included.",
    _SECONDS,
)
FAMILIES = (
    RPC_REQUESTS,
    RPC_DURATION,
    RPC_IN_FLIGHT,
    STREAM_LOADS,
    STAGE_DURATION,
    FALLBACKS,
    BACKEND_KINDS,
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
    SESSIONS,
    MESSAGES,
    DELAYED,
    REPORTS,
    IGNORED,
    SWITCHES,
    ABORTS,
    PHASE,
    AGE,
    PAUSED,
    ALARMS,
    DECISIONS,
    PREDICTED,
    EVIDENCE,
    OVERDISPERSION,
    NOISE,
    DISTRUST,
    SWITCH_GAIN,
    DECISION_DURATION,
    LIVE,
    WORKERS,
    RANKS,
    EPOCH,
    GENERATION,
    PLACEMENT_AGE,
    ESTIMATE_AGE,
    MODE,
    PAUSED_FOR,
    MISMATCHES,
    APPLIED_MOVES,
    APPLIED_BYTES,
    PHASE_DURATION,
    STORE_FAILURES,
)
"""All of them, in the order to show them in."""
