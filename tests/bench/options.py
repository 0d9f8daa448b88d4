"""The options of the command line for sections."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from trimtab_server.solver import BackendName


@dataclass(frozen=True)
class Options:
    """How to measure.

    Attributes:
        repeats: calls per median.
        backends: names of the backends to measure; empty for all that can run here.
        peers: files that define `rebalance_experts`, to measure beside ours.
        memory: also measure peak memory, in a process for each figure.
        json: the file to which `served` writes its figures; None to write none.
        seeds: number of seeds with which `null` draws its traffic.
        quick: tiny shapes and few calls, to check that everything runs.
    """

    repeats: int = 5
    backends: tuple[BackendName, ...] = ()
    peers: tuple[Path, ...] = ()
    memory: bool = False
    json: Path | None = None
    seeds: int = 3
    quick: bool = False

    @property
    def backend(self) -> BackendName:
        """The one backend of sections that compare something else."""
        return self.backends[0] if self.backends else "auto"


Section = Callable[[Options], None]


class LimitError(Exception):
    """A figure exceeds the limit of its section; the run continues, and exits with 1."""
