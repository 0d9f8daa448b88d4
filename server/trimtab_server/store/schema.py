"""The tables of the SQLite store, and the migrations from earlier versions."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from trimtab_server.store.errors import StoreCorruptError, StoreSchemaError

APPLICATION_ID = int.from_bytes(b"Trim", "big")
"""Distinguishes our files from those of other programs; the command `file` prints it too."""

Migration = tuple[str, ...]
"""SQL statements that migrate the schema to the next version."""

MIGRATIONS: tuple[Migration, ...] = (
    (
        f"PRAGMA application_id = {APPLICATION_ID}",
        "CREATE TABLE server (one INTEGER PRIMARY KEY CHECK (one = 1), term INTEGER NOT NULL)",
        "INSERT INTO server VALUES (1, 0)",
        "CREATE TABLE records (deployment TEXT PRIMARY KEY, body TEXT NOT NULL)",
        "CREATE TABLE placements (digest BLOB PRIMARY KEY, body BLOB NOT NULL)",
        # The placements that each record refers to.
        """CREATE TABLE uses (
            deployment TEXT NOT NULL,
            digest BLOB NOT NULL,
            PRIMARY KEY (deployment, digest)
        ) WITHOUT ROWID""",
        """CREATE TABLE counters (
            deployment TEXT NOT NULL,
            worker TEXT NOT NULL,
            body BLOB NOT NULL,
            PRIMARY KEY (deployment, worker)
        )""",
    ),
    (
        "CREATE TABLE specs (deployment TEXT PRIMARY KEY, body TEXT NOT NULL)",
        "CREATE INDEX users ON uses (digest)",
        "UPDATE records SET body = json_set(body, '$.pinned', NULL, '$.past', json('[]'))",
    ),
    (
        # What operators did, the newest last.
        """CREATE TABLE operations (
            id INTEGER PRIMARY KEY,
            deployment TEXT NOT NULL,
            body TEXT NOT NULL
        )""",
        "CREATE INDEX operated ON operations (deployment, id)",
        # What is known of the placements that were in force: so far, nothing.
        """UPDATE records SET body = json_set(body, '$.origin', 'unknown', '$.since', NULL,
            '$.pin_origin', 'pinned',
            '$.past', (SELECT json_group_array(json_object(
                'version', json(json_extract(value, '$[0]')),
                'placement', json_extract(value, '$[1]'),
                'origin', 'unknown', 'since', NULL, 'until', NULL, 'imbalance', NULL))
                FROM json_each(body, '$.past')))""",
        """UPDATE records SET body = json_set(body, '$.switch.origin', 'unknown',
            '$.switch.begins', json('true')) WHERE json_type(body, '$.switch') = 'object'""",
    ),
)
"""Migration n turns version n into version n + 1; version 0 is an empty file. Never change a
migration that has been released: add another one."""


def check_file(connection: sqlite3.Connection, newest: int) -> None:
    """Raise, before anything is written, if this server must not use a file.

    Raises:
        StoreSchemaError: the file belongs to another program, or its schema is above `newest`.
        StoreCorruptError: its pages are damaged.
    """
    owner, version = _number(connection, "application_id"), _number(connection, "user_version")
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if (owner, version, tables) == (0, 0, 0):
        return
    if owner != APPLICATION_ID:
        raise StoreSchemaError("this file belongs to another program")
    if version > newest:
        raise StoreSchemaError(
            f"its schema has version {version}, and this server supports up to {newest}: use the "
            "newer one that wrote it"
        )
    (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if verdict != "ok":
        raise StoreCorruptError(" ".join(verdict.split()))


def migrate(connection: sqlite3.Connection, migrations: Sequence[Migration]) -> None:
    """Migrate the schema to the newest version, in the caller's transaction."""
    version = _number(connection, "user_version")
    for migration in migrations[version:]:
        for statement in migration:
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {len(migrations)}")


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    (value,) = connection.execute(f"PRAGMA {pragma}").fetchone()
    return int(value)
