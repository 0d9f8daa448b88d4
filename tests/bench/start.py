"""How long a server takes from its start to SERVING, with and without compiled kernels."""

from __future__ import annotations

import os
import queue
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from tests.bench.options import Options
from tests.bench.serving import Served, servers
from tests.bench.tables import print_table
from tests.servers import server_process
from trimtab_client import Client

STARTS = 3
CACHES = ("NUMBA_CACHE_DIR", "TRITON_CACHE_DIR")

CAPTION = f"""From starting the process to the health service's SERVING, median of {STARTS}. Cold:
the caches of compiled kernels ({", ".join(CACHES)}) are empty directories; warm: filled by a start
before. Both with the files of Python and torch in the system's cache."""


def run(options: Options) -> None:
    """Print the table, which includes the reference backend, although it compiles nothing."""
    starts = 1 if options.quick else STARTS
    measured = servers(options)
    if not options.backends and all(served.name != "reference" for served in measured):
        measured += servers(Options(backends=("reference",)))
    rows = ([served.name, *_cells(served, starts)] for served in measured)
    columns = ["backend", "cold cache, s", "warm cache, s"]
    print_table("Server, start to SERVING", columns, rows, CAPTION)


def _cells(served: Served, starts: int) -> Iterator[str]:
    try:
        with _empty_caches():
            _seconds(served)  # brings files into the system's cache
        yield f"{median(_cold(served) for _ in range(starts)):.2f}"
        with _empty_caches():
            _seconds(served)
            yield f"{median(_seconds(served) for _ in range(starts)):.2f}"
    except queue.Empty:
        yield "over 60"


def _cold(served: Served) -> float:
    with _empty_caches():
        return _seconds(served)


def _seconds(served: Served) -> float:
    start = time.perf_counter()
    with server_process(*served.flags) as server, Client(server.address) as client:
        client.wait_ready(60)
        return time.perf_counter() - start


@contextmanager
def _empty_caches() -> Iterator[None]:
    """Processes started inside find only the kernels that they compile themselves."""
    before = {name: os.environ.get(name) for name in CACHES}
    with TemporaryDirectory(prefix="trimtab-bench-") as folder:
        os.environ.update({name: str(Path(folder, name)) for name in CACHES})
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
