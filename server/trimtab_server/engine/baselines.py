"""Counters as the store keeps them, and back."""

from __future__ import annotations

import numpy as np

from trimtab_server.loads.counters import Counters
from trimtab_server.store.counters import SavedCounters


def baseline_of(counters: Counters) -> SavedCounters:
    """What to save of a worker's counters, as they are now."""
    estimate = counters.load_LE.astype("<f8").tobytes()
    return SavedCounters(
        counters.incarnation, counters.seq, counters.last_step, counters.counts_LE, estimate
    )


def restored(saved: SavedCounters) -> Counters:
    """Counters that go on from what was saved."""
    counters = Counters(saved.incarnation, *saved.counts_LE.shape)
    counters.seq, counters.last_step = saved.seq, saved.last_step
    counters.counts_LE = saved.counts_LE
    counters.load_LE[:] = np.frombuffer(saved.estimate, "<f8").reshape(saved.counts_LE.shape)
    return counters
