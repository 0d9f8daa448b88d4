"""What a worker has counted since its process began: rule P10 of PROTOCOL.md."""

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
from trimtab_client.worker.slots import slots_of
from trimtab_protocol.messages import MAX_TOKENS, Report

Counts = npt.NDArray[np.int64]

MAX_STEP = 2**63 - 2
"""A step and the one after it are int64 in messages."""


class Counters:
    """Cumulative counts by logical expert. Any number of threads may use it.

    Counts per slot are summed per slot, and become counts per expert when a snapshot is
    taken and when the map changes: so `record` is one addition whatever it is given.

    Args:
        placement: what the worker serves by.
        gpus: the GPUs that it owns.
    """

    def __init__(self, placement: Placement, gpus: Sequence[int]) -> None:
        self._lock = threading.Lock()
        self._counts_LE: Counts = np.zeros(placement.logcnt.shape, np.int64)
        # No less than all counts together: a bound costs one look at each matrix, a sum two.
        self._most_tokens = 0
        # Of the last snapshot, and whether a report has been acknowledged. Steps are in the
        # numbering of snapshots: up to which the last one counts, and those of lower seq.
        self._seq, self._acknowledged = 1, False
        self._reported = self._covered = -1
        self._last = -1
        # Whether the server still has to hear that what was counted is no traffic, and the
        # first report that says so beyond doubt.
        self._discard, self._said_in = False, 0
        self._snapshots = 0
        # Of the last call, and in the engine's numbering, which a new group may begin anew.
        self._span = (0, 0)
        self._shift = 0
        self._new_group = False
        self._serve(placement, gpus, 0)

    def record(
        self,
        counts: npt.ArrayLike,
        first_step: SupportsIndex,
        last_step: SupportsIndex,
        *,
        per_slot: bool = False,
    ) -> None:
        """Add what the steps from `first_step` to `last_step` have counted.

        Args:
            counts: [L, E], tokens of each logical expert; or, `per_slot`, [L, own slots],
                tokens of each slot of the worker's GPUs, in the order of slots.
            first_step: at least that of the last call, and, `per_slot`, not before the
                flip to what is in force.
            last_step: at least `first_step`, and at least that of the last call; at most
                2**63 - 2, with the steps of groups before.
            per_slot: what `counts` counts.

        Raises:
            InvalidArgumentError: another shape, no integers, a negative count, more tokens
                than a server takes (2**62, with those before), or steps that run backwards
                or too far. Nothing has been added.
        """
        amounts = as_indices(counts, "counts")
        if amounts.min() < 0:
            _refuse_negative(amounts)
        span = (
            integer(first_step, "first_step", low=0),
            integer(last_step, "last_step", high=MAX_STEP),
        )
        with self._lock:
            table = self._slots_LS if per_slot else self._counts_LE
            if amounts.shape != table.shape:
                what = "own slots" if per_slot else "E"
                raise invalid("counts", f"shape {amounts.shape} is not [L, {what}] = {table.shape}")
            self._check_span(span, per_slot)
            most_tokens = self._with(amounts)
            np.add(table, amounts, out=table)
            self._most_tokens = most_tokens
            self._note_span(span)

    def snapshot(self) -> Report:
        """The counts as they are now.

        All have number 1 until one has been acknowledged. So a server that sees this number
        first knows that no other has counted any of it; see `Counters` of the server.
        """
        with self._lock:
            counts_LE, slots_LS = self._counts_LE.copy(), self._slots_LS.copy()
            expert_of = self._expert_of_LS
            if self._acknowledged:
                self._seq, self._covered = self._seq + 1, self._reported
            self._reported = self._last
            seq, first, last = self._seq, self._covered + 1, self._last
            discard, alone = self._discard, self._acknowledged or self._snapshots == 0
            self._snapshots += 1
            # Before the first acknowledgement all reports have one number, and the server
            # may have taken another of them.
            if discard and alone and not self._said_in:
                self._said_in = seq
        _fold(slots_LS, expert_of, counts_LE)
        return Report(seq, first, last, counts_LE, discard)

    def acknowledged(self, seq: int) -> None:
        """The server has counted the report of this number; 0: none yet."""
        with self._lock:
            self._acknowledged = self._acknowledged or seq > 0
            if self._said_in and seq >= self._said_in:
                self._discard, self._said_in = False, 0

    def forget(self) -> None:
        """What was counted so far is no traffic: reports say so until one is acknowledged."""
        with self._lock:
            self._discard, self._said_in = True, 0

    def flipped(self, placement: Placement, gpus: Sequence[int], step: int) -> None:
        """From `step` on, slots hold what `placement` says."""
        with self._lock:
            _fold(self._slots_LS, self._expert_of_LS, self._counts_LE)
            self._serve(placement, gpus, step)

    def regrouped(self, placement: Placement, gpus: Sequence[int]) -> None:
        """A new group has formed, and may number its steps anew.

        What is reported goes on rising all the same: the steps of reports are the worker's
        own, and are compared with no other worker's.
        """
        with self._lock:
            _fold(self._slots_LS, self._expert_of_LS, self._counts_LE)
            self._serve(placement, gpus, 0)
            self._span, self._new_group = (0, 0), True

    def _serve(self, placement: Placement, gpus: Sequence[int], step: int) -> None:
        """Count by this map from `step` on."""
        layers, experts = placement.logcnt.shape
        own_LS = placement.phy2log[:, slots_of(gpus, placement)]
        # The position in a flat [L, E].
        self._expert_of_LS = own_LS + np.arange(layers)[:, None] * experts
        self._slots_LS: Counts = np.zeros(own_LS.shape, np.int64)
        self._flipped_at = step

    def _check_span(self, span: tuple[int, int], per_slot: bool) -> None:
        first, last = span
        if last < first:
            raise invalid("last_step", f"{last} is before first_step, {first}")
        if first < self._span[0]:
            raise invalid("first_step", f"{first} is before that of the last call, {self._span[0]}")
        if last < self._span[1]:
            raise invalid("last_step", f"{last} is before that of the last call, {self._span[1]}")
        if last > MAX_STEP - self._shift_of(span):
            rule = f"with those of the groups before, steps go to {MAX_STEP}"
            raise invalid("last_step", f"{last} is too far: {rule}")
        if per_slot and first < self._flipped_at:
            flip = f"the flip at step {self._flipped_at}"
            rule = f"record what came before {flip} by slots before `applied`"
            raise invalid("first_step", f"{first} is before {flip}: {rule}")

    def _with(self, amounts: Matrix) -> int:
        """No less than all counts will be with these; refuses what could not be reported."""
        most = self._most_tokens + int(amounts.max()) * amounts.size
        if most < MAX_TOKENS:
            return most
        # In floating point, where a sum cannot wrap around to fit.
        tables = (self._counts_LE, self._slots_LS, amounts)
        total = sum(float(table.sum(dtype=np.float64)) for table in tables)
        if total >= MAX_TOKENS:
            more = f"{amounts.sum(dtype=np.float64):.4g} tokens more make {total:.4g}"
            raise invalid("counts", f"{more}; a server takes less than 2**62 from one worker")
        return int(total)

    def _note_span(self, span: tuple[int, int]) -> None:
        self._shift, self._new_group = self._shift_of(span), False
        self._span = span
        if self._last < 0:
            self._reported = self._covered = span[0] - 1
        self._last = span[1] + self._shift

    def _shift_of(self, span: tuple[int, int]) -> int:
        """What to add to the engine's steps."""
        return max(0, self._last + 1 - span[0]) if self._new_group else self._shift


def _fold(slots_LS: Counts, expert_of_LS: npt.NDArray[np.int64], counts_LE: Counts) -> None:
    """Add counts per slot to counts per expert. An expert may have several slots."""
    np.add.at(counts_LE.reshape(-1), expert_of_LS, slots_LS)


def _refuse_negative(amounts: Matrix) -> None:
    row, column = np.argwhere(amounts < 0)[0]
    raise invalid(f"counts[{row}, {column}]", f"{amounts[row, column]} is negative")
