"""Processes that die with a store open: `python -m tests.store.child <what> <path>`."""

from __future__ import annotations

import os
import sys
from contextlib import closing
from dataclasses import replace
from itertools import count
from pathlib import Path

from tests.store.scenes import NEW, OLD, SERVING, counters, prepare, write
from trimtab_server.store.failpoints import POINTS, configure
from trimtab_server.store.sqlite import SqliteStore


def die_at_every_point(folder: Path) -> None:
    """Run one process on one file for each point, and print how each process ended."""
    for point in sorted(POINTS):
        path = folder / point / "store.db"
        path.parent.mkdir()
        with closing(SqliteStore(path)) as store:
            prepare(store)
        pid = os.fork()
        if pid == 0:
            _die_at(point, path)
        _, status = os.waitpid(pid, 0)
        print(point, os.waitstatus_to_exitcode(status), flush=True)


def _die_at(point: str, path: Path) -> None:
    try:
        configure(f"{point}=exit")
        write(SqliteStore(path), point.partition(":")[0])
    finally:
        # The process survived, which the test will report.
        os._exit(1)


def write_on(path: Path) -> None:
    """Write until killed, and print the number of each pair of writes when it is durable."""
    with closing(SqliteStore(path)) as store:
        for n in count(1):
            placement = (OLD, NEW)[n % 2]
            store.save("a", replace(SERVING, last_generation=n, placement=placement))
            store.save_counters("a", {"one": counters(n), "two": counters(n)})
            print(n, flush=True)


if __name__ == "__main__":
    what = {"die": die_at_every_point, "write": write_on}
    what[sys.argv[1]](Path(sys.argv[2]))
