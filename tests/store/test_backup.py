"""`trimtab-server backup` and `restore`: complete or not at all, whatever is there."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.store.scenes import AFTER, BEFORE, contents, expected, prepare, write
from tests.store.test_sqlite import child, largest_file, raw
from trimtab_server.cli import main
from trimtab_server.store.schema import MIGRATIONS
from trimtab_server.store.sqlite import SqliteStore

OLDER, NEWER = expected(BEFORE), expected(AFTER["save"])


class Command:
    """`trimtab-server`, in this process, for the store in a folder."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.store, self.copy = folder / "store.db", folder / "backups" / "copy.db"
        self.copy.parent.mkdir()
        self._capsys = capsys

    def ends(self, code: int, *arguments: object) -> str:
        """What the command says when it ends with this code, on the stream where that belongs."""
        said = [str(each) for each in arguments]
        assert main([said[0], "--store", str(self.store), *said[1:]]) == code
        out, err = self._capsys.readouterr()
        assert (out if code else err) == ""
        return err if code else out

    def prepared(self) -> Command:
        """Make the store, and a copy of it; then write on."""
        with closing(SqliteStore(self.store)) as store:
            prepare(store)
            self.ends(0, "backup", self.copy)
            write(store, "save")
        return self

    def files(self) -> dict[str, bytes]:
        """All files and what is in them, but the one that is locked. What SQLite shares changes."""
        files = [each for each in self.store.parent.rglob("*") if each.is_file()]
        return {
            each.name: b"" if each.name.endswith("-shm") else each.read_bytes()
            for each in files
            if each.suffix != ".lock"
        }


@pytest.fixture
def command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(tmp_path, capsys)


def stored(path: Path) -> Any:
    """The contents of a store in a file."""
    with closing(SqliteStore(path)) as store:
        return contents(store)


# Backup.


@pytest.mark.process
def test_a_backup_of_a_store_in_use_is_one_file_of_one_moment(command: Command) -> None:
    with child("write", command.store) as server:
        assert server.stdout is not None
        before = [int(server.stdout.readline()) for _ in range(20)][-1]
        said = command.ends(0, "backup", command.copy)
        assert server.poll() is None
        after = int(server.stdout.readline())
    assert said == f"{command.store} is copied to {command.copy}: 1 deployments, term 1\n"
    assert [file.name for file in command.copy.parent.iterdir()] == ["copy.db"]
    with closing(SqliteStore(command.copy)) as store:
        record, seqs = store.load("a"), store.load_counters("a")
        assert record is not None
        assert before <= record.last_generation
        assert {saved.seq for saved in seqs.values()} <= {
            record.last_generation,
            record.last_generation - 1,
        }
        assert after > before


def test_a_backup_has_what_a_killed_server_has_left_in_its_log(command: Command) -> None:
    with closing(SqliteStore(command.store)) as store:
        prepare(store)
        killed = command.store.parent / "killed.db"
        for end in ("", "-wal"):
            shutil.copy(f"{command.store}{end}", f"{killed}{end}")
    command.store = killed
    command.ends(0, "backup", command.copy)
    assert stored(command.copy) == OLDER


def test_a_file_that_exists_is_only_replaced_if_asked_for(command: Command) -> None:
    command.prepared()
    before = command.files()
    said = command.ends(1, "backup", command.copy)
    assert f"{command.copy}: this file exists: name another, or give --replace" in said
    assert command.files() == before
    command.ends(0, "backup", "--replace", command.copy)
    assert stored(command.copy) == NEWER


@pytest.mark.parametrize("replace", [[], ["--replace"]])
def test_a_backup_that_fails_leaves_what_was_there(command: Command, replace: list[str]) -> None:
    command.prepared()
    target = command.copy if replace else command.copy.with_name("other.db")
    with closing(SqliteStore(command.store)):
        before = command.files()
        with largest_file(5000):
            said = command.ends(1, "backup", *replace, target)
        assert command.files() == before
    assert f"{command.store}: cannot be copied to {target.parent}: " in said


def test_what_cannot_be_copied_or_written_is_named(command: Command) -> None:
    copy = command.copy
    assert f"{command.store}: there is no store here: name it" in command.ends(1, "backup", copy)
    command.prepared()
    before = command.files()
    for target, complaint in (
        (copy.parent, "this is a folder"),
        (copy.parent / "none" / "copy.db", f"there is no folder {copy.parent / 'none'}: make it"),
        (command.store, "this is the store itself"),
    ):
        assert f"{target}: {complaint}" in command.ends(1, "backup", "--replace", target)
        assert f"{target}: {complaint}" in command.ends(1, "backup", target)
    assert command.files() == before


@pytest.mark.parametrize("name", ["backup", "restore"])
def test_a_store_in_memory_has_no_copies(
    command: Command, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    command.prepared()
    command.store = Path("memory")
    assert "store: memory has no file" in command.ends(2, name, command.copy)


def test_the_store_is_found_as_its_server_finds_it(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with closing(SqliteStore(command.store)) as store:
        prepare(store)
    (tmp_path / "trimtab.toml").write_text(f'store = "{command.store}"')
    assert main(["backup", "--config", str(tmp_path / "trimtab.toml"), str(command.copy)]) == 0
    monkeypatch.setenv("TRIMTAB_STORE", str(command.store))
    assert main(["backup", "--replace", str(command.copy)]) == 0
    assert stored(command.copy) == OLDER


@pytest.mark.process
def test_copying_loads_no_torch(command: Command) -> None:
    command.prepared()
    code = (
        "import sys; from trimtab_server.cli import main; "
        f"main(['backup', '--replace', '--store', {str(command.store)!r}, {str(command.copy)!r}]); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Restore.


def test_a_copy_takes_the_place_of_a_store_which_is_kept(command: Command) -> None:
    command.prepared()
    assert "give --replace, which keeps the old one" in command.ends(1, "restore", command.copy)
    assert stored(command.store) == NEWER
    said = command.ends(0, "restore", "--replace", command.copy)
    kept = Path(said.splitlines()[-1].removeprefix("the store that was there is kept as "))
    assert kept.parent == command.store.parent
    names = {command.copy.name, command.store.name, kept.name}
    assert command.files().keys() == names, "no log is left that belongs to another file"
    assert stored(command.store) == OLDER
    assert stored(kept) == NEWER


def test_a_copy_may_be_put_where_there_is_no_store(command: Command) -> None:
    command.prepared()
    command.store = command.store.with_name("elsewhere.db")
    said = command.ends(0, "restore", command.copy)
    assert said == f"{command.copy} is copied to {command.store}: 2 deployments, term 1\n"
    assert stored(command.store) == OLDER
    assert stored(command.copy) == OLDER


def test_what_a_killed_server_has_left_in_its_log_is_kept_with_its_store(command: Command) -> None:
    command.prepared()
    with closing(SqliteStore(command.store)) as store:
        write(store, "delete")
        killed = command.store.with_name("killed.db")
        for end in ("", "-wal", "-shm"):
            shutil.copy(f"{command.store}{end}", f"{killed}{end}")
    command.store = killed
    said = command.ends(0, "restore", "--replace", command.copy)
    assert stored(command.store) == OLDER
    assert stored(Path(said.split()[-1])) == expected(AFTER["delete"])


def test_a_log_without_its_store_is_not_applied_to_the_copy(command: Command) -> None:
    command.prepared()
    with closing(SqliteStore(command.store)) as store:
        write(store, "delete")
        log = command.store.with_name("lost.db-wal")
        shutil.copy(f"{command.store}-wal", log)
    command.store = command.store.with_name("lost.db")
    assert "--replace" in command.ends(1, "restore", command.copy)
    command.ends(0, "restore", "--replace", command.copy)
    assert stored(command.store) == OLDER


@pytest.mark.parametrize("damage", [b"no database at all", b""], ids=["damaged", "empty"])
def test_a_store_that_cannot_be_read_is_replaced_and_kept(command: Command, damage: bytes) -> None:
    command.prepared()
    command.store.write_bytes(damage)
    said = command.ends(0, "restore", "--replace", command.copy)
    assert Path(said.split()[-1]).read_bytes() == damage
    assert stored(command.store) == OLDER


def test_two_restores_in_a_second_keep_both_stores(command: Command) -> None:
    command.prepared()
    kept = {command.ends(0, "restore", "--replace", command.copy).split()[-1] for _ in range(3)}
    assert len(kept) == 3
    assert all(Path(each).exists() for each in kept)


@pytest.mark.process
def test_a_store_in_use_is_not_replaced(command: Command) -> None:
    command.prepared()
    with child("write", command.store) as server:
        assert server.stdout is not None
        server.stdout.readline()
        said = command.ends(1, "restore", "--replace", command.copy)
    assert f"{command.store}: another server uses it, process {server.pid}; stop that" in said
    assert {file.name for file in command.store.parent.iterdir() if "copy" in file.name} == set()


def test_a_store_that_another_program_reads_is_not_replaced(command: Command) -> None:
    command.prepared()
    with closing(SqliteStore(command.store)) as store, raw(command.store) as reader:
        write(store, "delete")
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM records").fetchall()
        store.close()
        said = command.ends(1, "restore", "--replace", command.copy)
        assert f"{command.store}: another program reads it: stop that program" in said
    assert stored(command.store) == expected(AFTER["delete"])


def _edited(statement: str) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        with raw(path) as file:
            file.execute(statement)

    return edit


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (Path.unlink, "there is no such file"),
        (lambda path: path.write_bytes(b""), "this file is empty, and no store"),
        (lambda path: path.write_bytes(b"text" * 999), "file is not a database"),
        (lambda path: path.write_bytes(path.read_bytes()[:9000]), "malformed"),
        (_edited("PRAGMA application_id = 5"), "belongs to another program"),
        (_edited(f"PRAGMA user_version = {len(MIGRATIONS) + 1}"), "use the newer one that wrote"),
    ],
    ids=["missing", "empty", "a text", "truncated", "another program's", "a newer server's"],
)
def test_a_file_that_is_no_copy_of_a_store_changes_nothing(
    command: Command, spoil: Callable[[Path], object], complaint: str
) -> None:
    command.prepared()
    spoil(command.copy)
    before = command.files()
    said = command.ends(1, "restore", "--replace", command.copy)
    assert str(command.copy) in said
    assert complaint in said
    assert command.files() == before
    assert stored(command.store) == NEWER


def test_a_restore_that_fails_leaves_the_store_as_it_was(command: Command) -> None:
    command.prepared()
    before = command.files()
    with largest_file(5000):
        command.ends(1, "restore", "--replace", command.copy)
    assert command.files() == before
    assert stored(command.store) == NEWER
