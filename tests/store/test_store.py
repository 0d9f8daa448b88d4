"""The contract of `Store`, for all implementations, beside what test_model.py shows."""

from __future__ import annotations

import threading
from operator import methodcaller
from typing import Any

import numpy as np
import pytest

from tests.store.benches import Bench
from tests.store.scenes import AFTER, BEFORE, SERVING, contents, expected, prepare, write
from trimtab_server.rollout.record import Record
from trimtab_server.store.counters import SavedCounters
from trimtab_server.store.errors import StoreError
from trimtab_server.store.failpoints import STAGES, configure
from trimtab_server.store.memory import MemoryDisk, MemoryStore


def test_deployments_are_in_order_of_code_points(bench: Bench) -> None:
    store = bench.open()
    names = ["b", "", "a\0", "a", "\N{GRINNING FACE}", "\uffff", "é", "B"]
    for name in names:
        store.save(name, Record())
    assert store.deployments() == sorted(names)


@pytest.mark.parametrize("operation", AFTER)
@pytest.mark.parametrize("stage", STAGES)
def test_a_write_that_fails_has_happened_completely_or_not_at_all(
    bench: Bench, operation: str, stage: str
) -> None:
    store = bench.open()
    prepare(store)
    state = expected(AFTER[operation] if stage == "durable" else BEFORE)
    configure(f"{operation}:{stage}=error")
    with pytest.raises(StoreError, match=f"failpoint {operation}:{stage}"):
        write(store, operation)
    configure("")
    assert contents(store) == state
    bench.crash()
    store = bench.open()
    assert contents(store) == state
    write(store, operation)
    assert contents(store) == expected(AFTER[operation])


@pytest.mark.parametrize(
    "call",
    [
        ("deployments",),
        ("outrank", 9),
        ("load", "a"),
        ("save", "a", Record()),
        ("load_counters", "a"),
        ("save_counters", "a", {}),
        ("load_spec", "a"),
        ("save_spec", "a", "spec"),
        ("delete", "a"),
        ("add_operation", "a", "what was done", 3),
        ("operations", "a", 0),
        ("probe",),
    ],
    ids=lambda call: call[0],
)
def test_a_closed_store_does_nothing(bench: Bench, call: tuple[Any, ...]) -> None:
    store = bench.open()
    store.close()
    with pytest.raises(StoreError, match="closed"):
        methodcaller(*call)(store)
    store.close()
    bench.open()


def test_a_crashed_store_in_memory_does_nothing_either() -> None:
    disk = MemoryDisk()
    crashed = MemoryStore(disk)
    disk.crash()
    store = MemoryStore(disk)
    with pytest.raises(StoreError, match="closed"):
        crashed.save("a", SERVING)
    crashed.close()
    store.save("a", SERVING)


def test_any_thread_may_call(bench: Bench) -> None:
    store = bench.open()
    thread = threading.Thread(target=prepare, args=[store])
    thread.start()
    thread.join()
    assert contents(store) == expected(BEFORE)


def test_values_that_a_store_returns_cannot_be_changed(bench: Bench) -> None:
    store = bench.open()
    prepare(store)
    record = store.load("a")
    assert record is not None
    assert record.placement is not None
    assert record.epoch is not None
    with pytest.raises(ValueError, match="read-only"):
        record.placement.phy2log[0, 0] = 1
    with pytest.raises(TypeError, match="does not support item assignment"):
        record.epoch.members["worker"] = None  # type: ignore[index]
    with pytest.raises(ValueError, match="read-only"):
        store.load_counters("a")["worker"].counts_LE[0, 0] = 1


def test_a_store_copies_its_arguments(bench: Bench) -> None:
    store = bench.open()
    counts_LE = np.ones((2, 3), np.int64)
    by_worker = {"worker": SavedCounters(1, 1, 1, counts_LE, b"")}
    store.save_counters("a", by_worker)
    counts_LE[0, 0] = 5
    by_worker.clear()
    assert store.load_counters("a")["worker"].counts_LE.tolist() == [[1] * 3] * 2


def test_the_newest_operations_are_kept_whatever_happens_to_their_deployment(bench: Bench) -> None:
    store = bench.open()
    for number in range(5):
        store.add_operation("ab"[number % 2], f"operation {number}", 4)
    store.delete("a")
    bench.crash()
    store = bench.open()
    assert store.operations("a", 0) == ["operation 2", "operation 4"]
    assert store.operations("b", 0) == ["operation 1", "operation 3"]
    assert store.operations("b", 1) == ["operation 3"]
    assert store.operations("never", 0) == []
