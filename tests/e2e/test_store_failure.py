"""A real server whose disk is full: what it says, what goes on, and how it recovers."""

from __future__ import annotations

import re
import resource
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest

from tests.client.deployed import FIRST, SECOND, Worker, accepted
from tests.client.worker.server import WAIT
from tests.servers import ServerProcess, server_process
from tests.tools.cli.conftest import Cli, cli
from trimtab_client import (
    Client,
    RetryPolicy,
    ServingStatus,
    Topology,
    TrimtabError,
    UnavailableError,
)
from trimtab_client.health import SOLVER_SERVICE
from trimtab_protocol.version import Version
from trimtab_server.cli import main
from trimtab_server.rpc.server import SERVICES

__all__ = ["cli"]

pytestmark = [pytest.mark.process, pytest.mark.slow]


class Disk(Protocol):
    """Of a server's store. `why`: a pattern of what the store says when it is full."""

    folder: Path
    why: str

    def fill(self, server: ServerProcess) -> None: ...

    def make_room(self, server: ServerProcess) -> None: ...


class LimitedFiles:
    """Files that the process may not enlarge any more. Needs no rights."""

    why = "disk I/O error|File too large"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self, server: ServerProcess) -> None:
        self._limit(server, 1)

    def make_room(self, server: ServerProcess) -> None:
        self._limit(server, resource.RLIM_INFINITY)

    def _limit(self, server: ServerProcess, size: int) -> None:
        limits = size, resource.RLIM_INFINITY
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, limits)


class SmallDisk:
    """A file system of 8 MiB in memory."""

    why = "database or disk is full|No space left on device"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self, server: ServerProcess) -> None:
        with (self.folder / "filler").open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))

    def make_room(self, server: ServerProcess) -> None:
        (self.folder / "filler").unlink()


@contextmanager
def small_disk(folder: Path) -> Iterator[SmallDisk]:
    """Skips the test where this user may not mount."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("this user may not mount a file system")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(params=["limited files", "a small disk"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    if request.param == "limited files":
        yield LimitedFiles(tmp_path)
    else:
        with small_disk(tmp_path) as mounted:
            yield mounted


def until(condition: Callable[[], Any]) -> Any:
    """What a condition returns once it is true."""
    end = time.monotonic() + 6 * WAIT
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.01)
    return found


def refused(worker: Worker) -> str:
    """Why the next session of a worker that ends has ended."""
    while (event := worker.events.get(timeout=6 * WAIT)).kind != "disconnected":
        pass
    return str(event.values["reason"])


def failing(server: ServerProcess) -> bool:
    with urllib.request.urlopen(f"http://{server.metrics_address}/metrics", timeout=60) as answer:
        return b"\ntrimtab_store_failing 1.0\n" in answer.read()


def test_a_full_disk_is_told_and_the_server_goes_on_by_itself(
    disk: Disk, cli: Cli, capsys: pytest.CaptureFixture[str]
) -> None:
    often = ("--report-seconds", "0.05", "--save-seconds", "0.1")
    with (
        server_process("--store", str(disk.folder / "trimtab.db"), *often) as server,
        Client(server.address, retry=RetryPolicy(max_attempts=1), timeout=6 * WAIT) as client,
    ):
        worker = Worker(server, "d")
        accepted(client, "d", placement=SECOND)
        worker.flip()
        until(lambda: client.get_deployment("d").status.in_force == Version(1, 1))

        disk.fill(server)
        # Nobody asks for a change: what the worker counts cannot be saved any more.
        worker.session.record(np.ones((3, 4), np.int64), 1, 1)
        until(lambda: client.server_status().store_failure)
        assert_told(server, client, cli, capsys, disk)
        with pytest.raises(UnavailableError, match=r"the server's store failed: .*trimtab\.db"):
            client.pause("d", "maintenance")
        assert "the server's store failed: store" in refused(worker)
        assert_told(server, client, cli, capsys, disk)
        assert client.place(np.ones((1, 4)), Topology(6, 2)).placement.digest, "needs no store"

        disk.make_room(server)
        client.wait_ready(6 * WAIT)
        until(lambda: client.server_status().sessions == 1)
        assert not failing(server)
        assert "store        works" in cli.out("status", "--server", server.address)
        assert client.get_placement("d").placement == SECOND
        accepted(client, "d", placement=FIRST)
        worker.flip()
        until(lambda: client.get_deployment("d").status.in_force == Version(1, 2))
        worker.session.close(timeout=0.1)


def assert_told(
    server: ServerProcess,
    client: Client,
    cli: Cli,
    capsys: pytest.CaptureFixture[str],
    disk: Disk,
) -> None:
    """Wherever somebody looks, the store fails, and how."""
    health = {name: client.health(name) for name in ("", *SERVICES)}
    assert health.pop(SOLVER_SERVICE) is ServingStatus.SERVING
    assert set(health.values()) == {ServingStatus.NOT_SERVING}
    status = cli.out("status", "--server", server.address, code=1)
    assert f"FAILS: store {disk.folder}/trimtab.db: " in status
    assert main(["healthcheck", "--listen", server.address]) == 1
    complaint = f"NOT_SERVING: the store fails: store {disk.folder}/trimtab.db: "
    assert complaint in capsys.readouterr().err
    assert main(["healthcheck", "--liveness", "--listen", server.address]) == 0
    assert failing(server)
    shown = cli.out("deployments", "get", "d", "--server", server.address)
    [line] = [line for line in shown.splitlines() if line.startswith("not ready")]
    assert "the store fails: store " in line
    assert "the store fails: store " in cli.out("deployments", "--server", server.address)
    assert re.search(disk.why, line)
    with pytest.raises(TrimtabError, match=r"store fail(s|ed): store .*trimtab\.db"):
        client.trigger("d", placement=FIRST)
