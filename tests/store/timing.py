"""How long writes take on this machine: `python -m tests.store.timing [folder]`."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np

from tests.store.scenes import SERVING
from trimtab_server.domain.placement import placement_of
from trimtab_server.store.counters import SavedCounters
from trimtab_server.store.memory import MemoryStore
from trimtab_server.store.sqlite import SqliteStore
from trimtab_server.store.store import Store

LAYERS, EXPERTS, SLOTS, GPUS, WORKERS, TIMES = 58, 256, 288, 32, 8, 200


def median_ms(calls: Iterator[Callable[[], None]]) -> str:
    times = []
    for call in calls:
        begin = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - begin))
    most = statistics.quantiles(times, n=100)[98]
    return f"median {statistics.median(times):.2f} ms, 99th percentile {most:.2f} ms"


def new_placements(store: Store) -> Iterator[Callable[[], None]]:
    random = np.random.default_rng(0)
    for _ in range(TIMES):
        rows = [random.permutation(np.arange(SLOTS) % EXPERTS) for _ in range(LAYERS)]
        record = replace(SERVING, placement=placement_of(np.stack(rows), EXPERTS, GPUS))
        yield lambda record=record: store.save("a", record)  # type: ignore[misc]


def known_placement(store: Store) -> Iterator[Callable[[], None]]:
    record = store.load("a")
    assert record is not None
    for n in range(TIMES):
        yield lambda n=n: store.save("a", replace(record, last_generation=n))  # type: ignore[misc]


def counters(store: Store) -> Iterator[Callable[[], None]]:
    counts_LE = np.random.default_rng(0).integers(0, 1 << 40, (LAYERS, EXPERTS))
    estimate = bytes(8 * counts_LE.size)
    for seq in range(TIMES):
        saved = SavedCounters(1, seq, seq, counts_LE + seq, estimate)
        by_worker = {f"worker {w}": saved for w in range(WORKERS)}
        yield lambda saved=by_worker: store.save_counters("a", saved)  # type: ignore[misc]


def main() -> None:
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if sys.argv[1:] else None) as folder:
        stores: list[Store] = [SqliteStore(Path(folder) / "store.db"), MemoryStore()]
        for store in stores:
            with closing(store):
                for measured in (new_placements, known_placement, counters):
                    name = measured.__name__.replace("_", " ")
                    print(f"{type(store).__name__}, {name}: {median_ms(measured(store))}")


if __name__ == "__main__":
    main()
