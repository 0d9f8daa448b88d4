"""From where a worker's counters go on after a restart of the server: P10."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trimtab_server.domain.errors import require


@dataclass(frozen=True, eq=False)
class SavedCounters:
    """The baseline of one worker's counters, with the estimate made of them so far.

    Raises:
        InvalidArgumentError: `counts_LE` is of another dtype or rank.

    Attributes:
        incarnation: of the worker's process.
        seq: of the last report that was accepted.
        last_step: the last step that it covers.
        counts_LE: int64 [L, E]: tokens since the incarnation began; the store hands it
            out read-only.
        estimate: the worker's load estimate, in whatever form its owner gives it.
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
