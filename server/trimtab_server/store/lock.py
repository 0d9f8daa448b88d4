"""Keeps a file of the store to one server."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO

from trimtab_server.store.errors import StoreLockedError


def lock(path: Path) -> IO[str]:
    """Lock `<path>.lock` until the file returned is closed, or the process ends.

    This is flock on a file of its own. SQLite's locks, and all others made by fcntl, belong to
    a process: they let a second connection of the same process pass, and are lost as soon as
    anything in it closes any descriptor of that file. Flock belongs to the open file: it
    excludes both, and the kernel releases it with the last descriptor, whatever the process
    died of. Descriptors that Python opens are closed in programs that it starts. The file
    stays when the lock goes, since whoever waits for a file that was removed waits in vain.

    Raises:
        StoreLockedError: someone else has it; the message names the process.
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
            f"another server has it open, process {holder}; end that one, or give this one a "
            "store of its own"
        ) from error
    except BaseException:
        file.close()
        raise
    return file
