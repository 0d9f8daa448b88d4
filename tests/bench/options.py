"""What the command line asks of a section."""

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
        backends: names of those to measure; empty: all that can run here.
        peers: files with the field's `rebalance_experts`, to measure beside ours.
        memory: also measure peak memory, in a process for each figure.
        json: where `served` writes its figures; None: nowhere.
        seeds: how many `null` draws its traffic with.
        quick: tiny shapes and few calls, to see that everything runs.
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
    """A figure is over what the section allows; the run goes on, and exits with 1."""
