"""The contract of `Store`, for all implementations."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from tests.store.benches import Bench
from tests.store.scenes import (
    AFTER,
    BEFORE,
    FIRST,
    NEW,
    OLD,
    OTHER,
    PINNED,
    SERVING,
    SOMEWHERE_ELSE,
    SWITCHING,
    contents,
    counters,
    expected,
    prepare,
    write,
)
from trimtab_protocol.placement import Placement
from trimtab_protocol.version import Version
from trimtab_server.rollout.record import Record, Stage, Switch
from trimtab_server.store.counters import SavedCounters
from trimtab_server.store.errors import StoreError, StoreLockedError
from trimtab_server.store.failpoints import STAGES, configure
from trimtab_server.store.store import Store


def test_a_new_store_is_empty(bench: Bench) -> None:
    store = bench.open()
    assert store.deployments() == []
    assert store.load("a") is None
    assert store.load_counters("a") == {}
    store.delete("a")


def test_deployments_are_in_order_of_code_points(bench: Bench) -> None:
    store = bench.open()
    names = ["b", "", "a\0", "a", "\N{GRINNING FACE}", "\uffff", "é", "B"]
    for name in names:
        store.save(name, Record())
    assert store.deployments() == sorted(names)


@pytest.mark.parametrize("operation", AFTER)
def test_a_write_outlives_a_crash(bench: Bench, operation: str) -> None:
    store = bench.open()
    prepare(store)
    write(store, operation)
    bench.crash()
    assert contents(bench.open()) == expected(AFTER[operation])


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


def test_the_term_rises_whenever_a_store_is_opened(bench: Bench) -> None:
    store = bench.open()
    assert store.term == 1
    store.close()
    assert bench.open().term == 2
    bench.crash()
    assert bench.open().term == 3


def test_a_store_can_outrank_another_term(bench: Bench) -> None:
    store = bench.open()
    store.outrank(1)
    assert store.term == 1, "it is this store's own"
    store.outrank(41)
    assert store.term == 42
    store.outrank(7)
    assert store.term == 42
    bench.crash()
    assert bench.open().term == 43


@pytest.mark.parametrize(("stage", "term"), [("before", 2), ("written", 2), ("durable", 3)])
def test_a_store_that_cannot_be_opened_is_not_kept_locked(
    bench: Bench, stage: str, term: int
) -> None:
    bench.open().close()
    configure(f"open:{stage}=error")
    with pytest.raises(StoreError, match="failpoint"):
        bench.open()
    configure("")
    assert bench.open().term == term


def test_a_store_is_open_only_once_at_a_time(bench: Bench) -> None:
    store = bench.open()
    with pytest.raises(StoreLockedError, match="another server"):
        bench.open()
    store.save("a", SERVING)
    store.close()
    bench.open()


CALLS: list[Callable[[Store], object]] = [
    lambda store: store.deployments(),
    lambda store: store.outrank(9),
    lambda store: store.load("a"),
    lambda store: store.save("a", Record()),
    lambda store: store.load_counters("a"),
    lambda store: store.save_counters("a", {}),
    lambda store: store.delete("a"),
]


@pytest.mark.parametrize("call", CALLS)
def test_a_closed_store_does_nothing(bench: Bench, call: Callable[[Store], object]) -> None:
    store = bench.open()
    store.close()
    with pytest.raises(StoreError, match="closed"):
        call(store)
    store.close()
    bench.open()


def test_any_thread_may_call(bench: Bench) -> None:
    store = bench.open()
    thread = threading.Thread(target=prepare, args=[store])
    thread.start()
    thread.join()
    assert contents(store) == expected(BEFORE)


def test_counters_are_replaced_as_a_whole_and_for_one_deployment(bench: Bench) -> None:
    store = bench.open()
    store.save_counters("a", {"one": counters(1), "two": counters(1)})
    store.save_counters("b", {"one": counters(9)})
    store.save_counters("a", {"two": counters(2), "three": counters(3)})
    assert {w: c.seq for w, c in store.load_counters("a").items()} == {"two": 2, "three": 3}
    assert {w: c.seq for w, c in store.load_counters("b").items()} == {"one": 9}
    store.save_counters("a", {})
    assert store.load_counters("a") == {}
    # Counters alone do not make a deployment.
    assert store.deployments() == []


@pytest.mark.parametrize(
    ("states", "left"),
    [
        ([{"a": SERVING, "b": SERVING}], {OLD}),
        ([{"a": SWITCHING, "b": SOMEWHERE_ELSE}], {OLD, NEW, OTHER, PINNED, FIRST}),
        ([{"a": SWITCHING}, {"a": SERVING}], {OLD}),
        ([{"a": SWITCHING}, {"a": replace(SERVING, placement=NEW)}], {NEW}),
        ([{"a": SWITCHING, "b": SERVING}, {"a": None}], {OLD}),
        ([{"a": SERVING, "b": SERVING}, {"a": None}, {"b": Record()}], set()),
        ([{"a": replace(SERVING, past=SWITCHING.past, pinned=NEW)}, {"a": SERVING}], {OLD}),
        ([{"a": replace(SERVING, switch=Switch(Version(1, 4), OLD, Stage.OFFERED))}], {OLD}),
    ],
)
def test_a_placement_is_stored_once_and_as_long_as_a_record_refers_to_it(
    bench: Bench, states: list[dict[str, Record | None]], left: set[Placement]
) -> None:
    store = bench.open()
    for state in states:
        for deployment, record in state.items():
            if record is None:
                store.delete(deployment)
            else:
                store.save(deployment, record)
    assert bench.placements() == {placement.digest for placement in left}


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
