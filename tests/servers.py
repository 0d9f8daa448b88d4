"""Servers to test against: in the test's own event loop, or as a process."""

from __future__ import annotations

import asyncio
import json
import queue
import subprocess
import sys
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

from trimtab_server.config import ServerConfig, load_config
from trimtab_server.engine.queue import SolverQueue

ANY_PORT = "127.0.0.1:0"

Events = queue.Queue[dict[str, Any] | None]
"""Log entries of a server; None after the last."""


def make_config(**settings: Any) -> ServerConfig:
    """Configuration of a server on a free port and the CPU, without metrics."""
    return load_config(
        {
            "listen": ANY_PORT,
            "metrics_listen": "off",
            "device": "cpu",
            "store": "memory",
            # Else experts would move where a test has not asked for it.
            "balance": "off",
            **settings,
        },
        {},
    )


@asynccontextmanager
async def busy(solver: SolverQueue) -> AsyncIterator[threading.Event]:
    """The solver works on a job until the event is set, or the block ends."""
    started, release = threading.Event(), threading.Event()

    def job() -> None:
        started.set()
        release.wait()

    running = asyncio.ensure_future(solver.run(job))
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
    events: Events
    address: str
    metrics_address: str


_PATIENCE_S = 180
"""The first server on a machine compiles its kernels, and others may keep the cores busy."""


_PRELOADED = """
import json, sys
import trimtab_server.app
from trimtab_server.cli import main

arguments = sys.stdin.readline()
sys.exit(main(json.loads(arguments)) if arguments else 0)
"""

_preloaded: deque[subprocess.Popen[str]] = deque()
_how_many = 0


def _preload() -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _PRELOADED]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@contextmanager
def preloading() -> Iterator[None]:
    """Keep two processes that have imported the server ready for the next `server_process`.

    Two of three seconds of a start are imports. Where a core is idle, they cost tests no time.
    """
    global _how_many
    _how_many = 2
    try:
        yield
    finally:
        _how_many = 0
        while _preloaded:
            with _preloaded.pop() as process:  # closes its stdin, so that it ends
                process.kill()


def _serve(arguments: Sequence[str]) -> subprocess.Popen[str]:
    try:
        process = _preloaded.popleft()
    except IndexError:
        process = _preload()
    while len(_preloaded) < _how_many:
        _preloaded.append(_preload())
    assert process.stdin is not None
    with process.stdin as stdin:
        stdin.write(json.dumps(["serve", *arguments]) + "\n")
    return process


@contextmanager
def server_process(*flags: str) -> Iterator[ServerProcess]:
    """Run `trimtab-server serve` on free ports; ends it if it still runs."""
    process = _serve(
        [
            *("--device", "cpu", "--balance", "off"),
            *("--listen", ANY_PORT, "--metrics-listen", ANY_PORT, "--log-format", "json"),
            *("--store", "memory"),
            *flags,
        ]
    )
    events: Events = queue.Queue()
    reader = threading.Thread(target=_read_events, args=(process, events), daemon=True)
    reader.start()
    try:
        ready = next_event(events, "ready")
        yield ServerProcess(process, events, ready["address"], ready["metrics"])
    finally:
        process.kill()
        process.wait()
        reader.join()
        if process.stderr is not None:
            process.stderr.close()


def next_event(events: Events, name: str) -> dict[str, Any]:
    """The next log entry of this event; fails if the server ends or says no more."""
    seen = []
    while (event := events.get(timeout=_PATIENCE_S)) is not None:
        if event["event"] == name:
            return event
        seen.append(event)
    raise AssertionError(f"the server ended without {name!r}; it said {seen}")


def _read_events(process: subprocess.Popen[str], events: Events) -> None:
    """All the time, whoever listens: a server blocks on a full pipe. None ends them."""
    assert process.stderr is not None
    for line in process.stderr:
        try:
            events.put(json.loads(line))
        except ValueError:
            events.put({"event": line})
    events.put(None)
