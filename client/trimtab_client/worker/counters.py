"""A worker's token counts since its process began: rule P10 of PROTOCOL.md.

Legend for all shapes: L layers, E logical experts, S slots of the worker's own GPUs.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import SupportsIndex

import numpy as np
import numpy.typing as npt

from trimtab_client.arrays import Matrix, as_indices
from trimtab_client.checks import integer
from trimtab_client.exceptions import invalid
from trimtab_client.placement import Placement
from trimtab_protocol.messages import MAX_TOKENS, Report

Counts = npt.NDArray[np.int64]

MAX_STEP = 2**63 - 2
"""A step and the one after it are int64 in messages."""


class Counters:
    """Cumulative counts by logical expert. Any number of threads may use it.

    Counts by slot are added up by slot, and become counts by expert when a snapshot is
    taken and when the placement changes: so `record` is always a single addition.
    """

    def __init__(self, placement: Placement, gpus: Sequence[int]) -> None:
        self._lock = threading.Lock()
        self._counts_LE: Counts = np.zeros(placement.logcnt.shape, np.int64)
        # An upper bound of all counts together: it takes one pass over each matrix, a sum two.
        self._tokens_bound = 0
        # The number of the last snapshot, and whether a report has been acknowledged.
        self._seq, self._acknowledged = 1, False
        # The last step that the last snapshot counts, and the last that those of lower seq do.
        self._reported = self._covered = -1
        self._last = -1
        # Whether the server has yet to learn that it has to discard the counts so far, and the
        # first report that is certain to tell it so; 0 if there was none yet.
        self._discard, self._discard_seq = False, 0
        self._snapshots = 0
        # The steps of the last call in the engine's numbering, which a new group may restart,
        # and what to add to get the numbering of snapshots.
        self._span = (0, 0)
        self._shift = 0
        self._new_group = False
        self._slots_LS = self._expert_of_LS = np.zeros((0, 0), np.int64)
        self._serve(placement, gpus, 0)

    def record(
        self,
        counts: npt.ArrayLike,
        first_step: SupportsIndex,
        last_step: SupportsIndex,
        *,
        per_slot: bool = False,
    ) -> None:
        """Add the counts of some steps; see `SessionBase.record`."""
        amounts = as_indices(counts, "counts")
        if amounts.min() < 0:
            row, column = np.argwhere(amounts < 0)[0]
            raise invalid(f"counts[{row}, {column}]", f"{amounts[row, column]} is negative")
        first = integer(first_step, "first_step", low=0)
        last = integer(last_step, "last_step", high=MAX_STEP)
        with self._lock:
            table = self._slots_LS if per_slot else self._counts_LE
            if amounts.shape != table.shape:
                what = "own slots" if per_slot else "E"
                raise invalid("counts", f"shape {amounts.shape} is not [L, {what}] = {table.shape}")
            shift = max(0, self._last + 1 - first) if self._new_group else self._shift
            self._check_steps(first, last, shift)
            if per_slot and first < self._flipped_at:
                flip = f"the flip at step {self._flipped_at}"
                rule = f"record what came before {flip} by slots before `applied`"
                raise invalid("first_step", f"{first} is before {flip}: {rule}")
            self._tokens_bound = self._bound_with(amounts)
            np.add(table, amounts, out=table)
            self._span, self._shift, self._new_group = (first, last), shift, False
            if self._last < 0:
                self._reported = self._covered = first - 1
            self._last = last + shift

    def snapshot(self) -> Report:
        """The counts as they are now.

        All snapshots have number 1 until one has been acknowledged. So a server that sees
        number 1 first knows that no other report has counted any of its tokens; see `Counters`
        of the server.
        """
        with self._lock:
            counts_LE, slots_LS = self._counts_LE.copy(), self._slots_LS.copy()
            expert_of = self._expert_of_LS
            if self._acknowledged:
                self._seq, self._covered = self._seq + 1, self._reported
            self._reported = self._last
            seq, first, last = self._seq, self._covered + 1, self._last
            # Before the first acknowledgement all reports have number 1, and the server may
            # have counted an earlier one.
            unambiguous = self._acknowledged or self._snapshots == 0
            self._snapshots += 1
            discard = self._discard
            if discard and unambiguous and not self._discard_seq:
                self._discard_seq = seq
        _fold(slots_LS, expert_of, counts_LE)
        return Report(seq, first, last, counts_LE, discard)

    def acknowledged(self, seq: int) -> None:
        """Note that the server has counted the report of this number; 0 if it has none yet."""
        with self._lock:
            self._acknowledged = self._acknowledged or seq > 0
            if self._discard_seq and seq >= self._discard_seq:
                self._discard, self._discard_seq = False, 0

    def forget(self) -> None:
        """Let reports say, until one is acknowledged, that the counts so far are no load."""
        with self._lock:
            self._discard, self._discard_seq = True, 0

    def flipped(self, placement: Placement, gpus: Sequence[int], step: int) -> None:
        """Count slots by `placement` from `step` on."""
        with self._lock:
            self._serve(placement, gpus, step)

    def regrouped(self, placement: Placement, gpus: Sequence[int]) -> None:
        """Count slots by `placement` for a new group, which may restart its step numbers.

        The steps of reports rise all the same: they are the worker's own, and are not compared
        with those of other workers.
        """
        with self._lock:
            self._serve(placement, gpus, 0)
            self._span, self._new_group = (0, 0), True

    def _serve(self, placement: Placement, gpus: Sequence[int], step: int) -> None:
        _fold(self._slots_LS, self._expert_of_LS, self._counts_LE)
        layers, experts = placement.logcnt.shape
        own_LS = placement.phy2log[:, slots_of(gpus, placement)]
        # The position of each slot's expert in a flat [L, E].
        self._expert_of_LS = own_LS + np.arange(layers)[:, None] * experts
        self._slots_LS = np.zeros(own_LS.shape, np.int64)
        self._flipped_at = step

    def _check_steps(self, first: int, last: int, shift: int) -> None:
        if last < first:
            raise invalid("last_step", f"{last} is before first_step, {first}")
        if first < self._span[0]:
            raise invalid("first_step", f"{first} is before that of the last call, {self._span[0]}")
        if last < self._span[1]:
            raise invalid("last_step", f"{last} is before that of the last call, {self._span[1]}")
        if last > MAX_STEP - shift:
            rule = f"with those of the groups before, steps go to {MAX_STEP}"
            raise invalid("last_step", f"{last} is too far: {rule}")

    def _bound_with(self, amounts: Matrix) -> int:
        """The bound of all counts with these added; refuses counts that no report could hold."""
        bound = self._tokens_bound + int(amounts.max()) * amounts.size
        if bound < MAX_TOKENS:
            return bound
        # The exact sum is computed in floating point, where it cannot wrap around.
        tables = (self._counts_LE, self._slots_LS, amounts)
        total = sum(float(table.sum(dtype=np.float64)) for table in tables)
        if total >= MAX_TOKENS:
            more = f"{amounts.sum(dtype=np.float64):.4g} tokens more make {total:.4g}"
            raise invalid("counts", f"{more}; a server takes less than 2**62 from one worker")
        return int(total)


def slots_of(gpus: Sequence[int], placement: Placement) -> Counts:
    """The slots of these GPUs, int64 [slots of these GPUs], in the order of the GPUs."""
    slots_GS = np.arange(placement.phy2log.shape[1]).reshape(placement.num_gpus, -1)
    return slots_GS[list(gpus)].ravel()


def _fold(slots_LS: Counts, expert_of_LS: npt.NDArray[np.int64], counts_LE: Counts) -> None:
    """Add counts by slot to counts by expert. An expert may have several slots."""
    np.add.at(counts_LE.reshape(-1), expert_of_LS, slots_LS)
