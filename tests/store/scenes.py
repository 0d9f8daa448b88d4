"""A store with contents, one write of each kind, and the contents before and after it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from trimtab_protocol.history import Member
from trimtab_protocol.placement import Placement
from trimtab_protocol.version import Version
from trimtab_server.rollout.record import Epoch, Origin, Record, Served, Stage, Switch
from trimtab_server.store.counters import SavedCounters
from trimtab_server.store.store import Store

OLD = Placement.of([[0, 1, 2, 1], [2, 1, 0, 0]], 3, 2)
NEW = Placement.of([[2, 1, 0, 1], [2, 1, 0, 0]], 3, 2)
OTHER = Placement.of([[0, 0, 1]], 2, 3)
PINNED = Placement.of([[0, 1, 2, 1], [0, 1, 2, 0]], 3, 2)
FIRST = Placement.of([[0, 1, 2, 0], [0, 1, 2, 0]], 3, 2)

SERVING = Record(
    epoch=Epoch(1, "group", {"worker": Member(7, (0, 1))}, 2),
    in_force=Version(1, 3),
    placement=OLD,
    last_generation=3,
)
SWITCHING = replace(
    SERVING,
    last_generation=4,
    switch=Switch(Version(1, 4), NEW, Stage.OFFERED, Origin.PINNED, begins=False),
    paused="by hand",
    pinned=PINNED,
    past=(
        Served(Version(1, 0), FIRST),
        Served(Version(1, 2), NEW, Origin.TRIGGERED, 1000.0, 2000.5, 1.25),
    ),
    origin=Origin.DECIDED,
    since=2000.5,
    pin_origin=Origin.ROLLED_BACK,
)
SOMEWHERE_ELSE = replace(SERVING, placement=OTHER)


FOREIGN_TERM = 40


def counters(seq: int) -> SavedCounters:
    return SavedCounters(7, seq, 10 * seq, np.full((2, 3), seq), b"estimate %d" % seq)


def prepare(store: Store) -> None:
    store.save("a", SERVING)
    store.save("b", SOMEWHERE_ELSE)
    store.save_counters("a", {"worker": counters(1), "left": counters(1)})
    store.save_counters("b", {"worker": counters(5)})
    store.save_spec("a", "what it is")


def write(store: Store, operation: str) -> None:
    match operation:
        case "outrank":
            store.outrank(FOREIGN_TERM)
        case "save":
            store.save("a", SWITCHING)
        case "save_counters":
            store.save_counters("a", {"worker": counters(2), "new": counters(3)})
        case "save_spec":
            store.save_spec("a", "otherwise")
        case "delete":
            store.delete("a")
        case "add_operation":
            store.add_operation("a", "what was done", 3)
        case "probe":
            store.probe()
        case _:
            raise AssertionError(operation)


State = Mapping[str, tuple[Record | None, Mapping[str, int], str | None]]
"""Records, numbers of workers' last reports, and specs, by deployment."""

_A, _B = (SERVING, {"worker": 1, "left": 1}, "what it is"), (SOMEWHERE_ELSE, {"worker": 5}, None)
BEFORE: State = {"a": _A, "b": _B}
AFTER: Mapping[str, State] = {
    "outrank": BEFORE,
    "save": {"a": (SWITCHING, *_A[1:]), "b": _B},
    "save_counters": {"a": (SERVING, {"worker": 2, "new": 3}, _A[2]), "b": _B},
    "save_spec": {"a": (*_A[:2], "otherwise"), "b": _B},
    "delete": {"a": (None, {}, None), "b": _B},
    "add_operation": BEFORE,
    "probe": BEFORE,
}


def contents(store: Store, deployments: Iterable[str] = ("a", "b")) -> Any:
    """The contents of the store, which must be about these deployments only."""
    deployments = list(deployments)
    stored = store.deployments()
    assert stored == sorted(
        each
        for each in deployments
        if store.load(each) is not None or store.load_spec(each) is not None
    )
    return {
        each: (
            plain(store.load(each)),
            plain_counters(store.load_counters(each)),
            store.load_spec(each),
        )
        for each in deployments
    }


def expected(state: State) -> Any:
    """The `contents` that are expected for a state above."""
    return {
        deployment: (
            plain(record),
            plain_counters({worker: counters(seq) for worker, seq in seqs.items()}),
            spec,
        )
        for deployment, (record, seqs, spec) in state.items()
    }


def plain(record: Record | None) -> str | None:
    """A record as text, with the types of its parts, so that two records can be compared."""
    if record is None:
        return None
    epoch, switch = record.epoch, record.switch
    return repr(
        replace(
            record,
            epoch=epoch and replace(epoch, members=dict(epoch.members)),
            placement=_plain_placement(record.placement),
            switch=switch and replace(switch, placement=_plain_placement(switch.placement)),
            pinned=_plain_placement(record.pinned),
            past=tuple(
                served._replace(placement=_plain_placement(served.placement))
                for served in record.past
            ),
        )
    )


def plain_counters(saved: Mapping[str, SavedCounters]) -> dict[str, str]:
    return {
        worker: repr(
            (c.incarnation, c.seq, c.last_step, c.counts_LE.dtype, c.counts_LE.tolist(), c.estimate)
        )
        for worker, c in saved.items()
    }


def _plain_placement(placement: Placement | None) -> Any:
    if placement is None:
        return None
    return (placement.phy2log.tolist(), placement.num_experts, placement.num_gpus, placement.digest)
