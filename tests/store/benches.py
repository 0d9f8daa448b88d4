"""A bench for each store: operations that tests need beyond the interface."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from trimtab_server.store.memory import MemoryDisk, MemoryStore
from trimtab_server.store.sqlite import SqliteStore


def folder_in_memory() -> tempfile.TemporaryDirectory[str]:
    """A folder for many writes that need not outlive the machine: each would wait for the disk."""
    memory = Path("/dev/shm")  # noqa: S108 - the folder in it is private
    return tempfile.TemporaryDirectory(dir=memory if memory.exists() else None)


class MemoryBench:
    """Opens a store, lets it crash, and opens it again."""

    def __init__(self, folder: Path) -> None:
        self._disk = MemoryDisk()

    def open(self) -> MemoryStore:
        """Open a store on the contents that exist; the caller does not have to close it."""
        return MemoryStore(self._disk)

    def crash(self) -> None:
        """Simulate a kill -9 of the process that uses the store."""
        self._disk.crash()

    def placements(self) -> set[bytes]:
        """Digests of the stored placements."""
        return set(self._disk.contents.placements)

    def tidy(self) -> None:
        """Close the stores that are still open."""
        self.crash()


class SqliteBench:
    """`MemoryBench` of a store in a file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._crashes = 0
        self.path.parent.mkdir()
        self._opened: list[SqliteStore] = []

    @property
    def path(self) -> Path:
        return self._folder / str(self._crashes) / "store.db"

    def open(self) -> SqliteStore:
        self._opened.append(SqliteStore(self.path))
        return self._opened[-1]

    def crash(self) -> None:
        """Continue with a copy of the files that a kill would leave, since closing changes them."""
        left = [self.path, self.path.with_name(self.path.name + "-wal")]
        self._crashes += 1
        self.path.parent.mkdir()
        for file in left:
            if file.exists():
                shutil.copy(file, self.path.parent)
        self.tidy()

    def placements(self) -> set[bytes]:
        with closing(sqlite3.connect(self.path)) as connection:
            return {digest for (digest,) in connection.execute("SELECT digest FROM placements")}

    def tidy(self) -> None:
        while self._opened:
            self._opened.pop().close()


Bench = MemoryBench | SqliteBench
BENCHES: dict[str, Callable[[Path], Bench]] = {"memory": MemoryBench, "sqlite": SqliteBench}
