"""Settings of the solver, of requests, and of sessions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from trimtab_server.domain.errors import require_all
from trimtab_server.setting import between, device_spec, setting

MEMORY = "memory"
"""The setting `store` of a server whose deployments are lost when it ends."""

# Copies of the solver's types. Importing those would load torch, which a program that only reads
# the configuration does not need.
Effort = Literal["fast", "balanced"]
BackendName = Literal["auto", "reference", "cpu", "cuda"]

Creators = Literal["anyone", "workers", "operators"]
"""Who may create deployments."""


@dataclass(frozen=True)
class SolverConfig:
    """Solver."""

    device: str = setting(
        "auto",
        "Where the solver runs: cpu, cuda, cuda:<number>, or auto for the first CUDA "
        "device, or the CPU if there is none.",
        rule=device_spec,
    )
    backend: BackendName = setting(
        "auto",
        "What does the solver's work: cuda (fused kernels), cpu (compiled), reference (torch, "
        "slow), or auto for the fastest that runs on the device. All give the same answers.",
    )
    effort: Effort = setting("balanced", "How hard the solver tries if a request does not say.")
    solver_threads: int = setting(
        0,
        "Maximum number of threads of one solver operation on the CPU; 0 for one per core. "
        "Fewer are used while other processes keep cores busy.",
        unit="threads",
        rule=between(0, 1024),
    )
    queue_size: int = setting(
        64,
        "Maximum number of solver jobs that wait. Further requests are refused, and told when "
        "to try again.",
        unit="jobs",
        rule=between(1, 1 << 20),
    )


@dataclass(frozen=True)
class Limits:
    """Limits of one request."""

    max_tensor_elements: int = setting(
        1 << 26,
        "Largest tensor that a request may contain or make the solver allocate.",
        unit="elements",
        rule=between(1, 1 << 40),
    )
    max_slots: int = setting(
        1 << 16,
        "Maximum number of slots of a layer, and of items of a row to pack. The solver handles "
        "them one after another.",
        unit="slots",
        rule=between(1, 1 << 24),
    )
    max_restarts: int = setting(
        64,
        "Maximum number of restarts that a request may ask for.",
        unit="restarts",
        rule=between(1, 1 << 16),
    )
    max_top_k: int = setting(
        64, "Largest top_k that a request may ask for.", unit="packs", rule=between(1, 1 << 16)
    )


_CENTURY = 100 * 365 * 86400.0


def _balances(value: str) -> str | None:
    modes = ("off", "shadow", "active")
    return None if value in modes else f"{value!r} is not one of {', '.join(modes)}"


@dataclass(frozen=True)
class SessionConfig:
    """Sessions and switches."""

    balance: str = setting(
        "active",
        "Mode of new deployments: active moves experts as loads shift, shadow decides and "
        "reports its decisions but moves nothing, off decides nothing. trimtab deployments "
        "update changes the mode of a deployment that exists.",
        rule=_balances,
    )
    store: str = setting(
        "trimtab.db",
        "Where deployments are stored: the path of a SQLite file, which is created if it does "
        "not exist, or memory, which is lost when the server ends. Only one server can use "
        "a file.",
    )
    report_seconds: float = setting(
        1.0, "Time between two load reports of a worker.", unit="seconds", rule=between(0.01, 3600)
    )
    lease_seconds: float = setting(
        15.0,
        "Time after which a session is lost if its worker sends nothing, or does not read "
        "what it is sent. Has to be longer than report_seconds.",
        unit="seconds",
        rule=between(0.1, 3600),
    )
    offer_seconds: float = setting(
        120.0,
        "Time in which all workers have to prepare an offer. After it, the offer is aborted.",
        unit="seconds",
        rule=between(0.1, 86400),
    )
    save_seconds: float = setting(
        5.0,
        "Time between two writes of the workers' counters to the store, and between two attempts "
        "to write while it fails.",
        unit="seconds",
        rule=between(0.1, 3600),
    )
    messages_per_second: float = setting(
        200.0,
        "Maximum rate of messages of a worker, on average over five seconds. Further messages "
        "are read later, which delays this worker only.",
        unit="messages",
        rule=between(0.01, 1e6),
    )
    rollback_points: int = setting(
        16,
        "Placements of a deployment that can be gone back to: those that were in force when a "
        "rollout began, fewer the older they are.",
        unit="placements",
        rule=between(2, 256),
    )
    max_operations: int = setting(
        10_000,
        "Maximum number of operators' operations that are kept for trimtab history, over all "
        "deployments. The oldest are dropped.",
        unit="operations",
        rule=between(1, 1 << 24),
    )
    max_sessions: int = setting(
        4096,
        "Maximum number of sessions of all deployments.",
        unit="sessions",
        rule=between(1, 1 << 20),
    )
    max_deployments: int = setting(
        1024, "Maximum number of deployments.", unit="deployments", rule=between(1, 1 << 20)
    )
    create_deployments: Creators = setting(
        "anyone",
        "Who may create deployments: workers (the first worker or the engine of each), operators "
        "(trimtab deployments create), or anyone.",
    )
    expire_seconds: float = setting(
        30 * 86400.0,
        "Time after which a deployment is deleted that has had no session, and no call of its "
        "engine; 0 for never. One that is pinned or paused is not deleted, since an operator "
        "wants it.",
        unit="seconds",
        rule=between(0, _CENTURY),
    )
    expire_new_seconds: float = setting(
        3600.0,
        "The same for a deployment that a worker or an engine created, and that never had a "
        "complete group; 0 for never. One that an operator created waits for its workers.",
        unit="seconds",
        rule=between(0, _CENTURY),
    )

    def __post_init__(self) -> None:
        report, lease, rate = self.report_seconds, self.lease_seconds, self.messages_per_second
        too_late = (
            f"{report:g} is not below lease_seconds, which is {lease:g}: each session would be "
            "lost before its worker reports"
        )
        too_slow = (
            f"{rate:g} is below the rate of a worker's reports, which is one in {report:g} seconds "
            "(report_seconds): its messages would be read ever later"
        )
        require_all(
            (report < lease, "report_seconds", too_late),
            (report * rate >= 1, "messages_per_second", too_slow),
        )
