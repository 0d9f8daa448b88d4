"""Counters and estimates as the store keeps them, and back."""

from __future__ import annotations

import struct

import numpy as np

from trimtab_server.loads.counters import Counters
from trimtab_server.loads.estimates import Estimate
from trimtab_server.store.counters import SavedCounters

_STEPS = struct.Struct("<d")


def baseline_of(counters: Counters, estimate: Estimate) -> SavedCounters:
    """What to save of a worker's counters and estimate, as they are now."""
    rate = estimate.rate().astype("<f8").tobytes()
    return SavedCounters(
        counters.incarnation,
        counters.seq,
        counters.last_step,
        counters.counts_LE,
        _STEPS.pack(estimate.steps) + rate,
    )


def restore(saved: SavedCounters, estimate: Estimate) -> Counters:
    """Counters that go on from what was saved; the estimate, which is new, does so too."""
    counters = Counters(saved.incarnation, *saved.counts_LE.shape)
    counters.seq, counters.last_step = saved.seq, saved.last_step
    counters.counts_LE = saved.counts_LE
    (steps,) = _STEPS.unpack_from(saved.estimate)
    rate = np.frombuffer(saved.estimate, "<f8", offset=_STEPS.size)
    if steps:
        estimate.add(rate.reshape(saved.counts_LE.shape) * steps, steps)
    return counters
