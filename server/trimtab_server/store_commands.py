"""`trimtab-server backup` and `restore`. They need neither a server nor torch."""

from __future__ import annotations

from pathlib import Path

from trimtab_server.config import ServerConfig
from trimtab_server.domain.errors import invalid
from trimtab_server.store.backup import backup, restore

BACKUP_DESCRIPTION = """\
Copies the store of this configuration to FILE, as it is at one moment. A server may use the
store meanwhile. FILE is one SQLite file, complete and checked, or it is not written at all.

  trimtab-server backup --store /var/lib/trimtab/trimtab.db /backup/trimtab.db
"""

RESTORE_DESCRIPTION = """\
Puts FILE, which `trimtab-server backup` has made, in the place of the store of this
configuration. Stop the server first, and run this as the user that runs it. FILE is checked
before anything changes.

  trimtab-server restore --store /var/lib/trimtab/trimtab.db --replace /backup/trimtab.db

If the workers have gone on since the backup, the server pauses their deployments when they
connect: look at them, then run `trimtab resume`.
"""


def back_up(config: ServerConfig, copy: Path, *, replace: bool) -> int:
    """Copy the store to the file `copy`, and say so; returns exit code 0.

    Raises:
        InvalidArgumentError: the store is no file.
        StoreError: see `backup`.
    """
    store = _file_of(config)
    copied = backup(store, copy, replace=replace)
    print(f"{store} is copied to {copy}: {copied.deployments} deployments, term {copied.term}")
    return 0


def put_back(config: ServerConfig, copy: Path, *, replace: bool) -> int:
    """Put `copy` in the place of the store, and say so; returns exit code 0.

    Raises:
        InvalidArgumentError: the store is no file.
        StoreError: see `restore`.
    """
    store = _file_of(config)
    copied = restore(copy, store, replace=replace)
    print(f"{copy} is copied to {store}: {copied.deployments} deployments, term {copied.term}")
    if copied.kept is not None:
        print(f"the store that was there is kept as {copied.kept}")
    return 0


def _file_of(config: ServerConfig) -> Path:
    store = config.sessions.store
    if store == "memory":
        raise invalid(
            "store", "memory has no file, and ends with its server: name the file of the store"
        )
    return Path(store)
