"""Settings of the engine."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from trimtab_server.setting import between, device_spec, setting

# The solver's own types, spelt out: importing them would load torch, which those
# who only read the configuration can do without.
Effort = Literal["fast", "balanced"]
BackendName = Literal["auto", "reference", "cpu", "cuda"]


@dataclass(frozen=True)
class SolverConfig:
    """Solver."""

    device: str = field(
        default="auto",
        metadata=setting(
            "Where the solver runs: cpu, cuda, cuda:<number>, or auto for the first CUDA "
            "device, and the CPU where there is none.",
            rule=device_spec,
        ),
    )
    backend: BackendName = field(
        default="auto",
        metadata=setting(
            "What carries out the solver's work: cuda (fused kernels), cpu (compiled), "
            "reference (torch, slow), or auto for the fastest that can run on the device. "
            "Answers are the same.",
        ),
    )
    effort: Effort = field(
        default="balanced",
        metadata=setting("How hard to try where a request does not say."),
    )
    solver_threads: int = field(
        default=0,
        metadata=setting(
            "Most threads of one solver operation on the CPU; 0 for one on each core. Fewer work "
            "where other processes keep cores busy.",
            unit="threads",
            rule=between(0, 1024),
        ),
    )
    queue_size: int = field(
        default=64,
        metadata=setting(
            "Solver jobs that may wait. One more is refused, and told when to try again.",
            unit="jobs",
            rule=between(1, 1 << 20),
        ),
    )


@dataclass(frozen=True)
class Limits:
    """Limits of one request."""

    max_tensor_elements: int = field(
        default=1 << 26,
        metadata=setting(
            "Largest tensor that a request may bring or make the solver hold.",
            unit="elements",
            rule=between(1, 1 << 40),
        ),
    )
    max_slots: int = field(
        default=1 << 16,
        metadata=setting(
            "Most slots of a layer, and most items of a row to pack: the solver takes them "
            "one after another.",
            unit="slots",
            rule=between(1, 1 << 24),
        ),
    )
    max_restarts: int = field(
        default=64,
        metadata=setting(
            "Most restarts that a request may ask for.",
            unit="restarts",
            rule=between(1, 1 << 16),
        ),
    )
    max_top_k: int = field(
        default=64,
        metadata=setting(
            "Largest top_k that a request may ask for.",
            unit="packs",
            rule=between(1, 1 << 16),
        ),
    )


def _balances(value: str) -> str | None:
    modes = ("off", "shadow", "active")
    return None if value in modes else f"{value!r} is not one of {', '.join(modes)}"


@dataclass(frozen=True)
class SessionConfig:
    """Sessions and switches."""

    balance: str = field(
        default="active",
        metadata=setting(
            "What a new deployment makes of its workers' reports: active moves experts as loads "
            "shift, shadow decides and says so but moves nothing, off decides nothing. "
            "Each keeps its own mode from then on; trimtab deployments update changes it.",
            rule=_balances,
        ),
    )
    store: str = field(
        default="trimtab.db",
        metadata=setting(
            "Where deployments are remembered: the path of a SQLite file, which is made if "
            "it is not there, or memory, which forgets them when the server ends. One server "
            "to a file.",
        ),
    )
    failpoints: str = field(
        default="none",
        metadata=setting(
            "For tests: points at which the store fails or the server dies, such as "
            "save:durable=exit@2; or none.",
        ),
    )
    report_seconds: float = field(
        default=1.0,
        metadata=setting(
            "Time between two reports of a worker.", unit="seconds", rule=between(0.01, 3600)
        ),
    )
    lease_seconds: float = field(
        default=15.0,
        metadata=setting(
            "Time after which a session counts as lost whose worker says nothing, or reads "
            "nothing of what it is told. Longer than the time between reports.",
            unit="seconds",
            rule=between(0.1, 3600),
        ),
    )
    offer_seconds: float = field(
        default=120.0,
        metadata=setting(
            "Time in which all workers have to prepare an offer; then it is aborted.",
            unit="seconds",
            rule=between(0.1, 86400),
        ),
    )
    save_seconds: float = field(
        default=5.0,
        metadata=setting(
            "Time between two savings of what the workers have counted.",
            unit="seconds",
            rule=between(0.1, 3600),
        ),
    )
    messages_per_second: float = field(
        default=200.0,
        metadata=setting(
            "Messages that a worker may send, on average over five seconds. Those beyond that are "
            "read later, which holds up that worker only.",
            unit="messages",
            rule=between(0.01, 1e6),
        ),
    )
    max_sessions: int = field(
        default=4096,
        metadata=setting(
            "Sessions at a time, over all deployments.", unit="sessions", rule=between(1, 1 << 20)
        ),
    )
    max_deployments: int = field(
        default=1024,
        metadata=setting(
            "Deployments that sessions may name.", unit="deployments", rule=between(1, 1 << 20)
        ),
    )
