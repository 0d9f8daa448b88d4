"""The store in memory: for tests, and for servers that do not have to be durable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from trimtab_server.rollout.record import Record
from trimtab_server.store import codec
from trimtab_server.store.counters import SavedCounters
from trimtab_server.store.errors import StoreError, StoreLockedError
from trimtab_server.store.failpoints import hit


@dataclass(frozen=True)
class _Entry:
    """A deployment's encoded record, and the digests of the placements it refers to."""

    body: str
    uses: frozenset[bytes]


@dataclass
class _Contents:
    """Everything that is stored, encoded, so that nobody else can change it."""

    term: int = 0
    records: dict[str, _Entry] = field(default_factory=dict)
    placements: dict[bytes, bytes] = field(default_factory=dict)
    counters: dict[str, Mapping[str, bytes]] = field(default_factory=dict)
    specs: dict[str, str] = field(default_factory=dict)
    operations: tuple[tuple[str, str], ...] = ()

    def copied(self) -> _Contents:
        """A copy whose tables can be changed."""
        return replace(
            self,
            records=dict(self.records),
            placements=dict(self.placements),
            counters=dict(self.counters),
            specs=dict(self.specs),
        )

    def drop_unused(self) -> None:
        """Drop the placements that no record refers to."""
        used = frozenset[bytes]().union(*(entry.uses for entry in self.records.values()))
        for digest in self.placements.keys() - used:
            del self.placements[digest]


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
            with self._transaction("open") as contents:
                contents.term += 1
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
        with self._transaction("outrank") as contents:
            contents.term = max(contents.term, term + 1)
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
        return codec.decode_record(entry.body, placements)

    def save(self, deployment: str, record: Record) -> None:
        """See `Store`."""
        placements = codec.placements_of(record)
        with self._transaction("save") as contents:
            entry = _Entry(codec.encode_record(record), frozenset(placements))
            contents.records[deployment] = entry
            for digest, placement in placements.items():
                contents.placements[digest] = codec.encode_placement(placement)
            contents.drop_unused()

    def load_counters(self, deployment: str) -> Mapping[str, SavedCounters]:
        """See `Store`."""
        saved = self._contents().counters.get(deployment, {})
        return {worker: codec.decode_counters(body) for worker, body in saved.items()}

    def save_counters(self, deployment: str, counters: Mapping[str, SavedCounters]) -> None:
        """See `Store`."""
        bodies = {worker: codec.encode_counters(saved) for worker, saved in counters.items()}
        with self._transaction("save_counters") as contents:
            contents.counters[deployment] = bodies

    def load_spec(self, deployment: str) -> str | None:
        """See `Store`."""
        return self._contents().specs.get(deployment)

    def save_spec(self, deployment: str, spec: str) -> None:
        """See `Store`."""
        with self._transaction("save_spec") as contents:
            contents.specs[deployment] = spec

    def delete(self, deployment: str) -> None:
        """See `Store`."""
        with self._transaction("delete") as contents:
            contents.records.pop(deployment, None)
            contents.counters.pop(deployment, None)
            contents.specs.pop(deployment, None)
            contents.drop_unused()

    def add_operation(self, deployment: str, operation: str, keep: int) -> None:
        """See `Store`."""
        with self._transaction("add_operation") as contents:
            contents.operations = (*contents.operations, (deployment, operation))[-keep:]

    def operations(self, deployment: str, limit: int) -> list[str]:
        """See `Store`."""
        found = [text for name, text in self._contents().operations if name == deployment]
        return found[-limit:]

    def probe(self) -> None:
        """See `Store`."""
        with self._transaction("probe"):
            pass

    def close(self) -> None:
        """See `Store`."""
        if self._disk.owner is self:
            self._disk.owner = None

    def _contents(self) -> _Contents:
        if self._disk.owner is not self:
            raise StoreError("store in memory: it is closed")
        return self._disk.contents

    @contextmanager
    def _transaction(self, operation: str) -> Iterator[_Contents]:
        """Keep the block's changes of the contents, unless it raises."""
        contents = self._contents().copied()
        hit(f"{operation}:before")
        yield contents
        hit(f"{operation}:written")
        self._disk.contents = contents
        hit(f"{operation}:durable")
