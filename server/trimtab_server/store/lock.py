"""Locks the file of a store, so that only one server uses it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO

from trimtab_server.store.errors import StoreLockedError


def lock(path: Path) -> IO[str]:
    """Lock `<path>.lock` until the returned file is closed, or the process ends.

    This uses flock on a separate file. SQLite's locks, and all others made with fcntl, belong to a
    process: they do not stop a second connection of the same process, and are lost as soon as
    the process closes any descriptor of the file. An flock belongs to the open file: it stops
    both, and the kernel releases it with the last descriptor, however the process ends. Programs
    that Python starts do not inherit the descriptor. The lock file is not deleted, since another
    process may already wait for it.

    Raises:
        StoreLockedError: another server holds the lock; the message names its process.
        OSError: the path cannot be written.
    """
    file = path.with_name(path.name + ".lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
    except BlockingIOError as error:
        file.seek(0)
        holder = file.read() or "unknown"
        file.close()
        raise StoreLockedError(
            f"another server uses it, process {holder}; stop that server, or give this one another "
            "store"
        ) from error
    except BaseException:
        file.close()
        raise
    return file
