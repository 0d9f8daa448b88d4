"""Servers to test against: in the test's own event loop, or as a process."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

from trimtab_server.config import ServerConfig, load_config
from trimtab_server.engine.queue import SolverQueue

ANY_PORT = "127.0.0.1:0"


def make_config(**settings: Any) -> ServerConfig:
    """Configuration of a server on a free port and the CPU, without metrics."""
    return load_config(
        {"listen": ANY_PORT, "metrics_listen": "off", "device": "cpu", **settings}, {}
    )


@asynccontextmanager
async def busy(queue: SolverQueue) -> AsyncIterator[threading.Event]:
    """The solver works on a job until the event is set, or the block ends."""
    started, release = threading.Event(), threading.Event()

    def job() -> None:
        started.set()
        release.wait()

    running = asyncio.ensure_future(queue.run(job))
    await asyncio.to_thread(started.wait)
    try:
        yield release
    finally:
        release.set()
        await asyncio.gather(running, return_exceptions=True)


@dataclass(frozen=True)
class ServerProcess:
    """A `trimtab-server serve` that has said it is ready."""

    process: subprocess.Popen[str]
    address: str
    metrics_address: str


@contextmanager
def server_process(*flags: str) -> Iterator[ServerProcess]:
    """Run the command on free ports; ends it if it still runs."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "trimtab_server", "serve", "--device", "cpu"),
            *("--listen", ANY_PORT, "--metrics-listen", ANY_PORT, "--log-format", "json"),
            *flags,
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        ready = next_event(process, "ready")
        yield ServerProcess(process, ready["address"], ready["metrics"])
    finally:
        process.kill()
        process.communicate()


def next_event(process: subprocess.Popen[str], name: str) -> dict[str, Any]:
    """The next log line of this event."""
    assert process.stderr is not None
    for line in process.stderr:
        event: dict[str, Any] = json.loads(line)
        if event["event"] == name:
            return event
    raise AssertionError(f"the server ended without {name!r}")
