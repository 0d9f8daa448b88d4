"""Settings of the engine."""

from __future__ import annotations

from dataclasses import dataclass

from trimtab_server.device import device_rule
from trimtab_server.setting import at_least, setting
from trimtab_server.solver.settings import DEFAULT_EFFORT, Effort


@dataclass(frozen=True)
class SolverConfig:
    """Solver."""

    device: str = setting(
        "auto",
        "Where the solver runs: cpu, cuda, cuda:<number>, or auto for the first CUDA "
        "device and the CPU where there is none.",
        rule=device_rule,
    )
    effort: Effort = setting(DEFAULT_EFFORT, "How hard to try where a request does not say.")
    solver_threads: int = setting(
        0,
        "Threads of one solver operation on the CPU. 0: one for each core.",
        unit="threads",
        rule=at_least(0),
    )
    queue_size: int = setting(
        64,
        "Solver jobs that may wait. One more is refused, with the time to wait before "
        "trying again.",
        unit="jobs",
        rule=at_least(1),
    )


@dataclass(frozen=True)
class Limits:
    """Limits of one request."""

    max_tensor_elements: int = setting(
        1 << 26,
        "Largest tensor that a request may bring, or make the solver hold.",
        unit="elements",
        rule=at_least(1),
    )
    max_restarts: int = setting(
        64, "Most restarts that a request may ask for.", unit="restarts", rule=at_least(1)
    )
    max_top_k: int = setting(
        64, "Largest top_k that a request may ask for.", unit="packs", rule=at_least(1)
    )
