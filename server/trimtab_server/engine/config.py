"""Settings of the engine."""

from __future__ import annotations

from dataclasses import dataclass, field

from trimtab_server.device import device_rule
from trimtab_server.setting import at_least, setting
from trimtab_server.solver.settings import DEFAULT_EFFORT, Effort


@dataclass(frozen=True)
class SolverConfig:
    """Solver."""

    device: str = field(
        default="auto",
        metadata=setting(
            "Where the solver runs: cpu, cuda, cuda:<number>, or auto for the first CUDA "
            "device, and the CPU where there is none.",
            rule=device_rule,
        ),
    )
    effort: Effort = field(
        default=DEFAULT_EFFORT,
        metadata=setting("How hard to try where a request does not say."),
    )
    solver_threads: int = field(
        default=0,
        metadata=setting(
            "Threads of one solver operation on the CPU; 0 for one on each core.",
            unit="threads",
            rule=at_least(0),
        ),
    )
    queue_size: int = field(
        default=64,
        metadata=setting(
            "Solver jobs that may wait. One more is refused, and told when to try again.",
            unit="jobs",
            rule=at_least(1),
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
            rule=at_least(1),
        ),
    )
    max_restarts: int = field(
        default=64,
        metadata=setting(
            "Most restarts that a request may ask for.", unit="restarts", rule=at_least(1)
        ),
    )
    max_top_k: int = field(
        default=64,
        metadata=setting(
            "Largest top_k that a request may ask for.", unit="packs", rule=at_least(1)
        ),
    )
