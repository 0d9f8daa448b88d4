"""The store in memory: for tests, and for servers that do not have to be durable."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from trimtab_server.rollout.record import Record
from trimtab_server.store.codec import (
    decode_counters,
    decode_record,
    encode_counters,
    encode_placement,
    encode_record,
    placements_of,
)
from trimtab_server.store.counters import SavedCounters
from trimtab_server.store.errors import StoreError, StoreLockedError
from trimtab_server.store.failpoints import hit

_T = TypeVar("_T")


@dataclass(frozen=True)
class _Entry:
    """A deployment's encoded record, and the digests of the placements it refers to."""

    body: str
    uses: frozenset[bytes]


@dataclass(frozen=True)
class _Contents:
    """Everything that is stored, encoded, so that nobody else can change it."""

    term: int = 0
    records: Mapping[str, _Entry] = field(default_factory=dict)
    placements: Mapping[bytes, bytes] = field(default_factory=dict)
    counters: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict)
    specs: Mapping[str, str] = field(default_factory=dict)


class MemoryDisk:
    """Holds the contents of a `MemoryStore`, and outlives it as a disk outlives a process."""

    def __init__(self) -> None:
        self.contents = _Contents()
        self.owner: MemoryStore | None = None

    def crash(self) -> None:
        """Simulate a crash: the open store becomes unusable, and another may be opened."""
        self.owner = None


class MemoryStore:
    """See `Store`. Its contents last as long as its `MemoryDisk`.

    Attributes:
        term: see `Store`.
    """

    term: int

    def __init__(self, disk: MemoryDisk | None = None) -> None:
        self._disk = MemoryDisk() if disk is None else disk
        if self._disk.owner is not None:
            raise StoreLockedError("store in memory: another server uses it")
        self._disk.owner = self
        try:
            self._write("open", lambda contents: replace(contents, term=contents.term + 1))
        except BaseException:
            self.close()
            raise
        self.term = self._disk.contents.term

    def reopen(self) -> MemoryStore:
        """Crash this store, and open the one that the next server would find."""
        self._disk.crash()
        return MemoryStore(self._disk)

    def outrank(self, term: int) -> None:
        """See `Store`."""
        if term <= self.term:
            return
        self._write("outrank", lambda old: replace(old, term=max(old.term, term + 1)))
        self.term = term + 1

    def deployments(self) -> list[str]:
        """See `Store`."""
        contents = self._contents()
        return sorted({*contents.records, *contents.specs})

    def load(self, deployment: str) -> Record | None:
        """See `Store`."""
        contents = self._contents()
        entry = contents.records.get(deployment)
        if entry is None:
            return None
        placements = {digest: contents.placements[digest] for digest in entry.uses}
        return decode_record(entry.body, placements)

    def save(self, deployment: str, record: Record) -> None:
        """See `Store`."""
        placements = placements_of(record)
        entry = _Entry(encode_record(record), frozenset(placements))
        added = {digest: encode_placement(placement) for digest, placement in placements.items()}
        self._write(
            "save",
            lambda contents: _without_unused(
                replace(
                    contents,
                    records={**contents.records, deployment: entry},
                    placements={**contents.placements, **added},
                )
            ),
        )

    def load_counters(self, deployment: str) -> Mapping[str, SavedCounters]:
        """See `Store`."""
        saved = self._contents().counters.get(deployment, {})
        return {worker: decode_counters(body) for worker, body in saved.items()}

    def save_counters(self, deployment: str, counters: Mapping[str, SavedCounters]) -> None:
        """See `Store`."""
        bodies = {worker: encode_counters(saved) for worker, saved in counters.items()}
        self._write(
            "save_counters",
            lambda contents: replace(contents, counters={**contents.counters, deployment: bodies}),
        )

    def load_spec(self, deployment: str) -> str | None:
        """See `Store`."""
        return self._contents().specs.get(deployment)

    def save_spec(self, deployment: str, spec: str) -> None:
        """See `Store`."""
        self._write(
            "save_spec",
            lambda contents: replace(contents, specs={**contents.specs, deployment: spec}),
        )

    def delete(self, deployment: str) -> None:
        """See `Store`."""
        self._write(
            "delete",
            lambda contents: _without_unused(
                replace(
                    contents,
                    records=_without(contents.records, deployment),
                    counters=_without(contents.counters, deployment),
                    specs=_without(contents.specs, deployment),
                )
            ),
        )

    def close(self) -> None:
        """See `Store`."""
        if self._disk.owner is self:
            self._disk.owner = None

    def _contents(self) -> _Contents:
        if self._disk.owner is not self:
            raise StoreError("store in memory: it is closed")
        return self._disk.contents

    def _write(self, operation: str, change: Callable[[_Contents], _Contents]) -> None:
        contents = self._contents()
        hit(f"{operation}:before")
        contents = change(contents)
        hit(f"{operation}:written")
        self._disk.contents = contents
        hit(f"{operation}:durable")


def _without(of: Mapping[str, _T], deployment: str) -> Mapping[str, _T]:
    return {name: value for name, value in of.items() if name != deployment}


def _without_unused(contents: _Contents) -> _Contents:
    used = frozenset[bytes]().union(*(entry.uses for entry in contents.records.values()))
    placements = {digest: body for digest, body in contents.placements.items() if digest in used}
    return replace(contents, placements=placements)
