"""Copies a store in a file while a server uses it, and puts a copy in the place of a store.

Neither leaves a file that is half-written: a copy is made and checked under another name, and
renamed when it is on the disk.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import NamedTuple

from trimtab_server.store.errors import StoreCorruptError, StoreError, StoreSchemaError
from trimtab_server.store.lock import lock
from trimtab_server.store.schema import MIGRATIONS, check_file
from trimtab_server.store.write_ahead_log import empty_log

_TIMEOUT_S = 5.0
"""How long another program may keep a file locked."""

_BESIDE = ("", "-wal", "-journal")
"""What SQLite adds to the name of a file that holds data, beside "-shm", which holds none."""

_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

_ADVICE = dict.fromkeys(
    (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN),
    ": run this as the user that runs the server",
)


class Copied(NamedTuple):
    """What was copied.

    Attributes:
        deployments: how many the copy has.
        term: of the server that wrote last.
        kept: where the store is that was replaced; None if there was none.
    """

    deployments: int
    term: int
    kept: Path | None = None


def backup(store: Path, target: Path, *, replace: bool) -> Copied:
    """Copy a store to a file, as it is at one moment. Its server may run, and is not held up.

    Args:
        store: the file that the setting `store` names.
        target: the file to write.
        replace: whether to replace `target` if it exists.

    Raises:
        StoreError: nothing was written; the message names the file, and says what to do.
    """
    store, target = store.resolve(), target.resolve()
    _require_file(store, "there is no store here: name it with --store, or in --config")
    if target == store:
        raise StoreError(f"{target}: this is the store itself: name another file")
    _require_target(target, replace, also_kept=False)
    with _staged(target) as staged:
        copied = _copy(store, staged)
        with _naming(target):
            _publish(staged, target)
    return copied


def restore(source: Path, store: Path, *, replace: bool) -> Copied:
    """Put a copy of a store in its place. Its server must not run.

    Args:
        source: a file that `backup` has made.
        store: the file that the setting `store` names.
        replace: whether to replace `store` if it exists. It is kept beside it, under another name.

    Raises:
        StoreLockedError: a server uses the store.
        StoreError: the store is as it was; the message names the file, and says what to do.
    """
    source, store = source.resolve(), store.resolve()
    _require_file(source, "there is no such file: name one that trimtab-server backup has made")
    if source == store:
        raise StoreError(f"{source}: this is the store itself: name a file made by a backup")
    _require_target(store, replace, also_kept=True)
    with _locked(store), _staged(store) as staged:
        copied = _copy(source, staged)
        with _naming(store):
            kept = _keep(store)
            _publish(staged, store)
    return copied._replace(kept=kept)


def _copy(source: Path, staged: Path) -> Copied:
    """Copy a store to a new file, durably, and check the copy."""
    with _naming(source, f"cannot be copied to {staged.parent}: "):
        # Not read-only: then SQLite would leave an empty log beside a store that no server uses.
        with closing(_connect(source, "rw")) as original, closing(_connect(staged, "rwc")) as copy:
            original.backup(copy, progress=_stop_if_locked)
            # One file, which has all data, and which a check does not change.
            copy.execute("PRAGMA journal_mode = DELETE")
        _sync(staged)
    with _naming(source), closing(_connect(staged, "ro")) as copy:
        check_file(copy, len(MIGRATIONS))
        if copy.execute("PRAGMA user_version").fetchone() == (0,):
            raise StoreSchemaError("this file is empty, and no store")
        (term,) = copy.execute("SELECT term FROM server").fetchone()
        names = "SELECT deployment FROM records UNION SELECT deployment FROM specs"
        return Copied(len(copy.execute(names).fetchall()), term)


def _stop_if_locked(status: int, _remaining: int, _total: int) -> None:
    # Python's `backup` would try for ever.
    if status & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        raise sqlite3.OperationalError("another program has locked it: stop that program")


def _keep(store: Path) -> Path | None:
    """Keep the store under another name too; returns that, or None if there is no store.

    Afterwards, nothing but the file itself has the name of the store: SQLite would apply a log that
    was left there to the file that replaces it.
    """
    _settle(store)
    left = [end for end in _BESIDE if _beside(store, end).exists()]
    kept = _unused_name(store)
    for end in left:
        os.link(_beside(store, end), _beside(kept, end))
    _sync(store.parent)
    for end in ("-wal", "-journal", "-shm"):
        _beside(store, end).unlink(missing_ok=True)
    return kept if left else None


def _settle(store: Path) -> None:
    """Have SQLite move all that a store holds into its one file, unless it is damaged."""
    if not store.exists():
        return
    try:
        with closing(_connect(store, "rw")) as connection:
            if not empty_log(connection):
                raise StoreError("another program reads it: stop that program")
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _DAMAGED:
            raise


def _unused_name(store: Path) -> Path:
    now = datetime.now(UTC)
    for number in count():
        more = f".{number}" if number else ""
        name = store.with_name(f"{store.name}.replaced-{now:%Y%m%dT%H%M%SZ}{more}")
        if not any(_beside(name, end).exists() for end in _BESIDE):
            return name
    raise AssertionError


@contextmanager
def _locked(store: Path) -> Iterator[None]:
    """No server can use the store meanwhile."""
    with _naming(store):
        held = lock(store)
    with closing(held):
        yield


@contextmanager
def _staged(target: Path) -> Iterator[Path]:
    """A name beside a file, for what is to replace it. Nothing has it afterwards."""
    staged = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        yield staged
    finally:
        for end in (*_BESIDE, "-shm"):
            _beside(staged, end).unlink(missing_ok=True)


def _publish(staged: Path, target: Path) -> None:
    staged.replace(target)
    _sync(target.parent)


def _sync(path: Path) -> None:
    """Wait until the disk has a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    uri = f"{path.as_uri()}?mode={mode}"
    return sqlite3.connect(uri, uri=True, timeout=_TIMEOUT_S, isolation_level=None)


def _beside(path: Path, end: str) -> Path:
    return path.with_name(path.name + end)


def _require_file(path: Path, otherwise: str) -> None:
    if not path.exists():
        raise StoreError(f"{path}: {otherwise}")
    if not path.is_file():
        raise StoreError(f"{path}: this is no file: name a file")


def _require_target(target: Path, replace: bool, *, also_kept: bool) -> None:
    if not target.parent.is_dir():
        raise StoreError(f"{target}: there is no folder {target.parent}: make it first")
    if target.is_dir():
        raise StoreError(f"{target}: this is a folder: name a file in it")
    if not replace and any(_beside(target, end).exists() for end in _BESIDE):
        keeps = ", which keeps the old one under another name" if also_kept else ""
        raise StoreError(f"{target}: this file exists: name another, or give --replace{keeps}")


@contextmanager
def _naming(path: Path, what: str = "") -> Iterator[None]:
    """Raise every error as a StoreError whose message names the file."""
    try:
        yield
    except StoreError as error:
        raise type(error)(f"{path}: {what}{error}") from error
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        kind = StoreCorruptError if code in _DAMAGED else StoreError
        raise kind(f"{path}: {what}{error}{_ADVICE.get(code, '')}") from error
    except OSError as error:
        raise StoreError(f"{path}: {what}{error}") from error
