"""The store in a file: kill -9, locks, damage, other programs' files, versions, size."""

from __future__ import annotations

import resource
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.store.benches import folder_in_memory
from tests.store.scenes import (
    AFTER,
    BEFORE,
    FOREIGN_TERM,
    NEW,
    OLD,
    SERVING,
    SWITCHING,
    contents,
    counters,
    expected,
    plain,
    prepare,
    write,
)
from tests.store.test_codec import (
    GOLDEN_COUNTERS,
    GOLDEN_RECORD_1,
    GOLDEN_RECORD_2,
    encoded_placements,
)
from trimtab_protocol.placement import Placement
from trimtab_protocol.version import Version
from trimtab_server.rollout.record import Origin, Record, Served, Stage, Switch
from trimtab_server.store import sqlite
from trimtab_server.store.errors import (
    StoreCorruptError,
    StoreError,
    StoreLockedError,
    StoreSchemaError,
)
from trimtab_server.store.failpoints import POINTS
from trimtab_server.store.schema import APPLICATION_ID, MIGRATIONS
from trimtab_server.store.sqlite import SqliteStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@contextmanager
def child(what: str, path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that uses the store; it is killed at the end if it still runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.store.child", what, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def raw(path: Path) -> closing[sqlite3.Connection]:
    """A connection of another program to the file."""
    return closing(sqlite3.connect(path, timeout=0, isolation_level=None))


# Death.


@pytest.fixture(scope="module")
def graveyard(
    starts_processes: None, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, str]]:
    """Files of processes that died at each failpoint, and how they ended."""
    folder = tmp_path_factory.mktemp("graveyard")
    with child("die", folder) as process:
        assert process.stdout is not None
        ended = dict(line.split() for line in process.stdout)
        assert process.wait() == 0
    return folder, ended


@pytest.mark.parametrize("point", sorted(POINTS))
def test_a_process_that_dies_leaves_the_state_before_or_after(
    graveyard: tuple[Path, dict[str, str]], point: str
) -> None:
    folder, ended = graveyard
    assert ended[point] == "137"
    operation, _, stage = point.partition(":")
    happened = stage == "durable"
    with closing(SqliteStore(folder / point / "store.db")) as store:
        # The store was opened three times: to prepare it, by the process that died, and here.
        opened = 2 if operation == "open" and not happened else 3
        outranked = operation == "outrank" and happened
        assert store.term == (FOREIGN_TERM + 2 if outranked else opened)
        state = AFTER[operation] if happened and operation in AFTER else BEFORE
        assert contents(store) == expected(state)


@pytest.mark.process
@pytest.mark.parametrize("lines", [1, 400])
def test_a_killed_process_leaves_all_that_it_acknowledged_and_no_lock(
    path: Path, lines: int
) -> None:
    with child("write", path) as process:
        assert process.stdout is not None
        for _ in range(lines):
            acknowledged = int(process.stdout.readline())
        with pytest.raises(StoreLockedError, match=f"{path}.*process {process.pid};"):
            SqliteStore(path)
        process.kill()
        # The lines printed before the kill, without the last one, which the kill may have cut.
        for line in process.stdout:
            acknowledged = int(line) if line.endswith("\n") else acknowledged
    with closing(SqliteStore(path)) as store:
        assert store.term == 2
        record = store.load("a")
        assert record is not None
        n = record.last_generation
        assert n in (acknowledged, acknowledged + 1)
        placement = (OLD, NEW)[n % 2]
        assert plain(record) == plain(replace(SERVING, last_generation=n, placement=placement))
        seqs = {worker: saved.seq for worker, saved in store.load_counters("a").items()}
        assert seqs in ({"one": n, "two": n}, {"one": n - 1, "two": n - 1})
        assert seqs["one"] >= acknowledged


# Locks.


def test_a_second_store_of_this_process_is_refused_under_any_name_of_the_file(path: Path) -> None:
    alias = path.with_name("alias.db")
    alias.symlink_to(path)
    with closing(SqliteStore(path)):
        # Closing a descriptor of a file releases all locks that fcntl made in this process.
        path.read_bytes()
        path.with_name(path.name + ".lock").read_bytes()
        for name in (path, alias):
            with pytest.raises(StoreLockedError, match=str(path)):
                SqliteStore(name)


@pytest.mark.process
def test_a_program_that_the_server_started_does_not_keep_the_lock(path: Path) -> None:
    with closing(SqliteStore(path)):
        started = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    with started, closing(SqliteStore(path)) as store:
        assert store.term == 2


def test_other_programs_may_read_while_the_server_writes(path: Path) -> None:
    with closing(SqliteStore(path)) as store, raw(path) as reader:
        prepare(store)
        reader.execute("BEGIN")
        count = "SELECT count(*) FROM records"
        assert reader.execute(count).fetchall() == [(2,)]
        store.delete("a")
        assert reader.execute(count).fetchall() == [(2,)]
        reader.execute("COMMIT")
        assert reader.execute(count).fetchall() == [(1,)]


# Durability.


def test_a_commit_waits_for_the_disk(path: Path) -> None:
    with closing(SqliteStore(path)) as store:
        connection = store._connected()
        full = 2
        assert connection.execute("PRAGMA synchronous").fetchone() == (full,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Make writes beyond this size fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("operation", AFTER)
def test_a_full_disk_fails_the_write_and_the_store_stays_usable(path: Path, operation: str) -> None:
    with closing(SqliteStore(path)) as store:
        prepare(store)
        log = path.with_name(path.name + "-wal").stat().st_size
        # If more than one page is written, the commit fails in the middle.
        room = 100 if operation == "outrank" else 5000
        with largest_file(log + room), pytest.raises(StoreError, match=str(path)):
            write(store, operation)
        assert contents(store) == expected(BEFORE)
        write(store, operation)
        assert contents(store) == expected(AFTER[operation])


def test_a_locked_file_is_an_error_after_a_timeout(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "_TIMEOUT_S", 0.01)
    with closing(SqliteStore(path)) as store, raw(path) as other:
        prepare(store)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match=f"{path}: database is locked"):
            write(store, "save")
        # The store could not find out what is on disk, so it returns nothing.
        with pytest.raises(StoreError, match=f"{path}"):
            store.load("a")
        other.execute("COMMIT")
        assert contents(store) == expected(BEFORE)


# Versions.


@pytest.mark.parametrize("version", [1, 2])
def test_a_file_of_an_old_version_is_migrated_once(path: Path, version: int) -> None:
    was = made_by_hand(path, version)
    more = (*MIGRATIONS, (MARK, "UPDATE server SET term = term + 100"))
    for term in (142, 143):
        with closing(SqliteStore(path, more)) as store:
            assert store.term == term
            assert plain(store.load("a")) == plain(replace(was, paused="migrated"))
            assert store.load_counters("a")["worker"].seq == 5
    with raw(path) as file:
        assert file.execute("PRAGMA user_version").fetchone() == (len(more),)


def test_a_migration_that_fails_changes_nothing(path: Path) -> None:
    made_by_hand(path)
    with pytest.raises(StoreError, match=f"{path}: no such table: nowhere"):
        SqliteStore(path, (*MIGRATIONS, (MARK, "DELETE FROM nowhere")))
    with closing(SqliteStore(path)) as store:
        assert store.term == 42
        assert plain(store.load("a")) == plain(IN_VERSION_1)


def test_an_empty_file_becomes_a_store(path: Path) -> None:
    path.touch()
    with closing(SqliteStore(path)) as store:
        assert store.term == 1
    with raw(path) as file:
        assert file.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)


def test_a_file_of_a_newer_server_is_refused_and_not_changed(path: Path) -> None:
    with closing(SqliteStore(path, (*MIGRATIONS, ()))) as store:
        prepare(store)
    versions = len(MIGRATIONS)
    newer = f"version {versions + 1}, and this server supports up to {versions}"
    refused(path, StoreSchemaError, newer)


# What these versions could not say.
IN_VERSION_2 = replace(
    SWITCHING,
    switch=Switch(Version(1, 4), NEW, Stage.OFFERED),
    past=tuple(Served(*served[:2]) for served in SWITCHING.past),
    origin=Origin.UNKNOWN,
    since=None,
    pin_origin=Origin.PINNED,
)
IN_VERSION_1 = replace(IN_VERSION_2, pinned=None, past=())
MARK = """UPDATE records SET body = replace(body, 'by hand', 'migrated')"""


def made_by_hand(path: Path, version: int = 1) -> Record:
    """Write a file of an old version that was opened 41 times; returns the record in it."""
    texts = {1: (GOLDEN_RECORD_1, IN_VERSION_1), 2: (GOLDEN_RECORD_2, IN_VERSION_2)}
    text, record = texts[version]
    with raw(path) as file:
        for migration in MIGRATIONS[:version]:
            for statement in migration:
                file.execute(statement)
        file.execute(f"PRAGMA user_version = {version}")
        file.execute("UPDATE server SET term = 41")
        file.execute("INSERT INTO records VALUES ('a', ?)", [text])
        file.execute("INSERT INTO counters VALUES ('a', 'worker', ?)", [GOLDEN_COUNTERS])
        for digest, body in encoded_placements(record).items():
            file.execute("INSERT INTO uses VALUES ('a', ?)", [digest])
            file.execute("INSERT INTO placements VALUES (?, ?)", [digest, body])
    return record


# Wrong and damaged files.


def refused(path: Path, kind: type[StoreError], why: str) -> None:
    content = path.read_bytes()
    for _ in range(2):
        with pytest.raises(kind, match=f"store {path}: .*{why}"):
            SqliteStore(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "statements",
    [
        ["CREATE TABLE theirs (x)"],
        ["PRAGMA application_id = 5"],
        ["PRAGMA user_version = 1"],
        ["PRAGMA journal_mode = WAL", "CREATE TABLE theirs (x)"],
    ],
)
def test_a_file_of_another_program_is_refused_and_not_changed(
    path: Path, statements: list[str]
) -> None:
    with raw(path) as file:
        for statement in statements:
            file.execute(statement)
    refused(path, StoreSchemaError, "another program; give the store another path")


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda _: b"no", "not a database; move it away"),
        (lambda _: b"not a database" * 1000, "not a database; move it away"),
        (lambda content: content[: 3 * 4096], "move it away"),
        (lambda content: content[:8192] + b"\xff" * 4096 + content[12288:], "move it away"),
    ],
    ids=["a word", "a text", "truncated", "a damaged page"],
)
def test_a_damaged_file_is_refused_and_not_changed(
    path: Path, damage: Callable[[bytes], bytes], why: str
) -> None:
    with closing(SqliteStore(path)) as store:
        prepare(store)
    path.write_bytes(damage(path.read_bytes()))
    refused(path, StoreCorruptError, why)


@pytest.mark.parametrize(
    ("damage", "load"),
    [
        ("UPDATE placements SET body = zeroblob(length(body))", SqliteStore.load),
        ("DELETE FROM placements", SqliteStore.load),
        ("UPDATE records SET body = '{}'", SqliteStore.load),
        ("UPDATE records SET body = 5", SqliteStore.load),
        ("UPDATE counters SET body = 'none'", SqliteStore.load_counters),
    ],
)
def test_a_damaged_value_is_refused(
    path: Path, damage: str, load: Callable[[SqliteStore, str], object]
) -> None:
    with closing(SqliteStore(path)) as store:
        prepare(store)
        with raw(path) as file:
            file.execute(damage)
        with pytest.raises(StoreCorruptError, match=f"store {path}: .*; move it away"):
            load(store, "a")


def test_a_missing_folder_is_named_and_not_created(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "store.db"
    with pytest.raises(StoreError, match=f"store {path}: there is no folder {path.parent}: "):
        SqliteStore(path)
    assert not list(tmp_path.iterdir())


def test_a_path_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "store.db", Path("/proc/none/store.db")):
        with pytest.raises(StoreError, match=f"store {path}: "):
            SqliteStore(path)


# Size.


def test_the_file_does_not_grow_with_the_number_of_writes() -> None:
    layers, slots, saves = 16, 256, 2000
    random = np.random.default_rng(0)
    with folder_in_memory() as folder:
        path = Path(folder) / "trimtab.db"
        with closing(SqliteStore(path)) as store:
            for n in range(saves):
                slots_LR = np.stack([random.permutation(slots) for _ in range(layers)])
                store.save("a", replace(SERVING, placement=Placement.of(slots_LR, slots, 4)))
                if n % 10 == 0:
                    store.save_counters("a", {"worker": counters(n)})
            size = sum(file.stat().st_size for file in path.parent.iterdir())
            written = saves * layers * slots * 4
            # SQLite copies the log to the file whenever it reaches 1 MiB.
            assert size < 1.5 * (1 << 20) < written / 20
        assert {file.name for file in path.parent.iterdir()} <= {path.name, path.name + ".lock"}
        assert path.stat().st_size < 200_000


def test_the_log_is_small_again_after_the_first_write_without_a_reader() -> None:
    random = np.random.default_rng(0)

    def save(store: SqliteStore) -> int:
        """Save another placement of 1 MiB; returns the size of the log."""
        slots_LR = np.stack([random.permutation(1 << 14) for _ in range(16)])
        store.save("a", replace(SERVING, placement=Placement.of(slots_LR, 1 << 14, 4)))
        return log.stat().st_size

    with folder_in_memory() as folder:
        path = Path(folder) / "trimtab.db"
        log = path.with_name("trimtab.db-wal")
        with closing(SqliteStore(path)) as store, raw(path) as reader:
            prepare(store)
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM records").fetchall()
            assert max(save(store) for _ in range(12)) > 8 << 20, "the reader keeps it"
            reader.execute("COMMIT")
            assert save(store) < 2 << 20
            assert max(save(store) for _ in range(12)) < 4 << 20


def test_a_probe_is_durable_and_changes_nothing(path: Path) -> None:
    with closing(SqliteStore(path)) as store:
        prepare(store)
        log = path.with_name(path.name + "-wal")
        before = log.stat().st_size
        store.probe()
        assert log.stat().st_size > before
        assert contents(store) == expected(BEFORE)
        assert {file.suffix for file in path.parent.iterdir()} == {
            ".db",
            ".db-wal",
            ".db-shm",
            ".lock",
        }


def test_a_probe_asks_for_the_room_that_the_next_save_needs(path: Path) -> None:
    with closing(SqliteStore(path)) as store:
        prepare(store)
        size = path.with_name(path.name + "-wal").stat().st_size
        with largest_file(size + (1 << 16)):
            store.save_spec("a", "something short fits")
            with pytest.raises(StoreError, match=f"store {path}: .*too large"):
                store.probe()
        store.probe()
