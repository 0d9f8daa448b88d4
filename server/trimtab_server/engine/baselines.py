"""Converts a worker's counters and load estimate to what the store keeps, and back."""

from __future__ import annotations

import struct

import numpy as np

from trimtab_server.loads.counters import Counters
from trimtab_server.loads.estimates import Estimate
from trimtab_server.store.counters import SavedCounters

_STEPS = struct.Struct("<d")
"""The estimate's number of steps, before its rate; its effective number of steps, after it."""


def baseline_of(counters: Counters, estimate: Estimate) -> SavedCounters:
    """What to save of a worker's counters and estimate."""
    rate = estimate.rate().astype("<f8").tobytes()
    return SavedCounters(
        counters.incarnation,
        counters.seq,
        counters.last_step,
        counters.counts_LE,
        _STEPS.pack(estimate.steps) + rate + _STEPS.pack(estimate.effective_steps),
    )


def restore(saved: SavedCounters, estimate: Estimate) -> Counters:
    """The saved counters. Also restores `estimate`, which has to be new."""
    counters = Counters(saved.incarnation, *saved.counts_LE.shape)
    counters.seq, counters.last_step = saved.seq, saved.last_step
    counters.counts_LE = saved.counts_LE
    (steps,) = _STEPS.unpack_from(saved.estimate)
    rate = np.frombuffer(saved.estimate, "<f8", saved.counts_LE.size, offset=_STEPS.size)
    end = _STEPS.size + rate.nbytes
    # Earlier versions did not save the effective number of steps.
    (effective,) = _STEPS.unpack_from(saved.estimate, end) if saved.estimate[end:] else (None,)
    if steps:
        estimate.resume(rate.reshape(saved.counts_LE.shape), steps, effective)
    return counters
