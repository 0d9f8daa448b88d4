"""The saved state from which a worker's counters continue after a server's restart: P10."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trimtab_server.domain.errors import require


@dataclass(frozen=True, eq=False)
class SavedCounters:
    """The baseline of one worker's counters, and the load estimate made of them so far.

    Raises:
        InvalidArgumentError: `counts_LE` has another dtype or rank.

    Attributes:
        incarnation: of the worker's process.
        seq: of the last accepted report.
        last_step: the last step that this report covers.
        counts_LE: int64 [L, E]: tokens since the incarnation began; read-only when the store
            returns it.
        estimate: the worker's load estimate, in a format that only its owner knows.
    """

    incarnation: int
    seq: int
    last_step: int
    counts_LE: npt.NDArray[np.int64]
    estimate: bytes

    def __post_init__(self) -> None:
        kind, shape = self.counts_LE.dtype, self.counts_LE.shape
        require(kind == np.int64, "counts_LE", f"dtype {kind} is not int64")
        require(len(shape) == 2, "counts_LE", f"shape {shape} has rank {len(shape)}, not 2")
