"""The store in one SQLite file: the default, for one server on one machine."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from trimtab_server.rollout.record import Record
from trimtab_server.store import codec
from trimtab_server.store.counters import SavedCounters
from trimtab_server.store.errors import StoreCorruptError, StoreError, StoreSchemaError
from trimtab_server.store.failpoints import hit
from trimtab_server.store.lock import lock
from trimtab_server.store.schema import MIGRATIONS, Migration, check_file, migrate
from trimtab_server.store.write_ahead_log import WriteAheadLog

_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

_ADVICE = {
    StoreCorruptError: "; move it away to start with an empty one",
    StoreSchemaError: "; give the store another path",
}

_TIMEOUT_S = 5.0
"""How long a call waits for another program that has locked the file, such as sqlite3."""

_ROOM_BYTES = 1 << 20
"""Room on the disk that a probe asks for: more than a save takes, and as much as the log does."""


class SqliteStore:
    """See `Store`. Other programs may read the file meanwhile; the lock is a file beside it.

    Attributes:
        term: see `Store`.
    """

    term: int

    def __init__(self, path: Path, migrations: Sequence[Migration] = MIGRATIONS) -> None:
        # Resolved, so that two names of one file have the same lock.
        self._path = path.resolve()
        self._migrations = migrations
        self._log = WriteAheadLog(self._path, _TIMEOUT_S)
        self._connection: sqlite3.Connection | None = None
        with self._translate_errors():
            if not self._path.parent.is_dir():
                raise StoreError(
                    f"there is no folder {self._path.parent}: create it, or name another file"
                )
            self._lock = lock(self._path)
        try:
            with self._transaction("open") as connection:
                migrate(connection, migrations)
                connection.execute("UPDATE server SET term = term + 1")
                (self.term,) = connection.execute("SELECT term FROM server").fetchone()
        except BaseException:
            self.close()
            raise

    def outrank(self, term: int) -> None:
        """See `Store`."""
        if term <= self.term:
            return
        with self._transaction("outrank") as connection:
            connection.execute("UPDATE server SET term = max(term, ?)", (term + 1,))
        self.term = term + 1

    def deployments(self) -> list[str]:
        """See `Store`."""
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT deployment FROM records UNION SELECT deployment FROM specs ORDER BY 1"
            )
            return [deployment for (deployment,) in rows]

    def load(self, deployment: str) -> Record | None:
        """See `Store`."""
        with self._reading() as connection:
            row = connection.execute(
                "SELECT body FROM records WHERE deployment = ?", (deployment,)
            ).fetchone()
            placements = connection.execute(
                "SELECT digest, body FROM placements JOIN uses USING (digest) WHERE deployment = ?",
                (deployment,),
            ).fetchall()
            return None if row is None else codec.decode_record(row[0], dict(placements))

    def save(self, deployment: str, record: Record) -> None:
        """See `Store`."""
        placements = codec.placements_of(record)
        with self._transaction("save") as connection:
            connection.execute(
                "INSERT OR REPLACE INTO records VALUES (?, ?)",
                (deployment, codec.encode_record(record)),
            )
            # Most placements are stored already: a rollout adds one, and may remove one.
            used = _used_by(connection, deployment)
            for digest in placements.keys() - used:
                connection.execute("INSERT INTO uses VALUES (?, ?)", (deployment, digest))
                connection.execute(
                    "INSERT OR IGNORE INTO placements VALUES (?, ?)",
                    (digest, codec.encode_placement(placements[digest])),
                )
            _drop(connection, deployment, used - placements.keys())

    def load_counters(self, deployment: str) -> Mapping[str, SavedCounters]:
        """See `Store`."""
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT worker, body FROM counters WHERE deployment = ?", (deployment,)
            )
            return {worker: codec.decode_counters(body) for worker, body in rows}

    def save_counters(self, deployment: str, counters: Mapping[str, SavedCounters]) -> None:
        """See `Store`."""
        with self._transaction("save_counters") as connection:
            connection.execute("DELETE FROM counters WHERE deployment = ?", (deployment,))
            for worker, saved in counters.items():
                connection.execute(
                    "INSERT INTO counters VALUES (?, ?, ?)",
                    (deployment, worker, codec.encode_counters(saved)),
                )

    def load_spec(self, deployment: str) -> str | None:
        """See `Store`."""
        with self._reading() as connection:
            row = connection.execute(
                "SELECT body FROM specs WHERE deployment = ?", (deployment,)
            ).fetchone()
            return None if row is None else str(row[0])

    def save_spec(self, deployment: str, spec: str) -> None:
        """See `Store`."""
        with self._transaction("save_spec") as connection:
            connection.execute("INSERT OR REPLACE INTO specs VALUES (?, ?)", (deployment, spec))

    def delete(self, deployment: str) -> None:
        """See `Store`."""
        with self._transaction("delete") as connection:
            connection.execute("DELETE FROM records WHERE deployment = ?", (deployment,))
            connection.execute("DELETE FROM counters WHERE deployment = ?", (deployment,))
            connection.execute("DELETE FROM specs WHERE deployment = ?", (deployment,))
            _drop(connection, deployment, _used_by(connection, deployment))

    def add_operation(self, deployment: str, operation: str, keep: int) -> None:
        """See `Store`."""
        with self._transaction("add_operation") as connection:
            connection.execute(
                "INSERT INTO operations (deployment, body) VALUES (?, ?)", (deployment, operation)
            )
            connection.execute(
                "DELETE FROM operations WHERE id <= (SELECT max(id) FROM operations) - ?", (keep,)
            )

    def operations(self, deployment: str, limit: int) -> list[str]:
        """See `Store`."""
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT body FROM operations WHERE deployment = ? ORDER BY id DESC LIMIT ?",
                (deployment, limit or -1),
            )
            return [body for (body,) in rows][::-1]

    def probe(self) -> None:
        """See `Store`."""
        with self._translate_errors():
            _require_room(self._path)
        with self._transaction("probe") as connection:
            # Unlike an UPDATE that changes no value, this writes a page.
            connection.execute(f"PRAGMA user_version = {len(self._migrations)}")

    def close(self) -> None:
        """See `Store`."""
        self._disconnect()
        self._lock.close()

    @contextmanager
    def _transaction(self, operation: str) -> Iterator[sqlite3.Connection]:
        """Make the block's changes durable; if it raises, undo them."""
        with self._translate_errors():
            connection = self._connected()
            try:
                hit(f"{operation}:before")
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                hit(f"{operation}:written")
                connection.execute("COMMIT")
                hit(f"{operation}:durable")
                self._log.keep_small(connection)
            except BaseException:
                # If a commit failed, nobody knows how much of it reached the disk. The next
                # call connects again, which finds out, and makes the result durable.
                self._disconnect()
                raise

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._translate_errors():
            yield self._connected()

    def _connected(self) -> sqlite3.Connection:
        if self._lock.closed:
            raise StoreError("it is closed")
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        """Connect to the file after checking it; all that is read from it is durable."""
        # Checked on a separate connection: after an integrity check, SQLite 3.40 refuses to
        # change the journal mode and to make a checkpoint on the same connection.
        with closing(self._open()) as connection:
            check_file(connection, len(self._migrations))
        connection = self._open()
        try:
            self._log.turn_on(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _open(self) -> sqlite3.Connection:
        # The contract allows calls from several threads, but not at the same time. Transactions
        # begin and end explicitly in this file; Python starts none.
        return sqlite3.connect(
            self._path, timeout=_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        # Rolled back explicitly, since a cursor that still exists would keep the transaction
        # open. If the disk fails here, the next connection reports it.
        with suppress(sqlite3.Error):
            connection.rollback()
        with suppress(sqlite3.Error):
            connection.close()

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        """Raise every error as a StoreError whose message names the store."""
        try:
            yield
        except StoreError as error:
            raise self._error(type(error), error) from error
        except sqlite3.Error as error:
            damaged = getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED
            raise self._error(StoreCorruptError if damaged else StoreError, error) from error
        except OSError as error:
            raise self._error(StoreError, error) from error

    def _error(self, kind: type[StoreError], cause: Exception) -> StoreError:
        return kind(f"store {self._path}: {cause}{_ADVICE.get(kind, '')}")


def _require_room(path: Path) -> None:
    """Write a file beside the store, durably, and remove it.

    On a disk that is almost full, a small write succeeds where a save fails.

    Raises:
        OSError: the disk has no room for it.
    """
    file = path.with_name(path.name + ".probe")
    try:
        with file.open("wb") as probe:
            probe.write(bytes(_ROOM_BYTES))
            probe.flush()
            os.fsync(probe.fileno())
    finally:
        file.unlink(missing_ok=True)


def _used_by(connection: sqlite3.Connection, deployment: str) -> set[bytes]:
    rows = connection.execute("SELECT digest FROM uses WHERE deployment = ?", (deployment,))
    return {digest for (digest,) in rows}


def _drop(connection: sqlite3.Connection, deployment: str, digests: set[bytes]) -> None:
    """Drop a deployment's references to placements, and placements without references."""
    for digest in digests:
        connection.execute(
            "DELETE FROM uses WHERE deployment = ? AND digest = ?", (deployment, digest)
        )
        connection.execute(
            "DELETE FROM placements WHERE digest = ?1 "
            "AND NOT EXISTS (SELECT 1 FROM uses WHERE digest = ?1)",
            (digest,),
        )
