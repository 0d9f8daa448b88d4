"""How many threads work: none of torch's, and not more of ours than there are free cores."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.solver.thread_counts import CONTROL, TASKS, calls
from trimtab_server.solver.backends.cpu import cores
from trimtab_server.solver.backends.cpu.cores import FreeCores
from trimtab_server.solver.backends.cpu.threads import _PARTS_PER_THREAD, _WORTH_NS, for_parts

ROOT = Path(__file__).parents[2]
FREE_CORES = "trimtab_server.solver.backends.cpu.threads._free_cores"
QUOTA_CORES = "trimtab_server.solver.backends.cpu.threads._quota_cores"

on_linux = pytest.mark.skipif(not TASKS.exists(), reason="threads are counted as Linux does")


@pytest.fixture(scope="module")
def woken(starts_processes: None) -> dict[str, int]:
    """How many threads each call left in a new process, without Trimtab's own."""
    ran = subprocess.run(
        [sys.executable, "-m", "tests.solver.thread_counts"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(("server", "protos"))},
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    counts: dict[str, int] = json.loads(ran.stdout)
    return counts


@on_linux
@pytest.mark.parametrize("name", [name for name in calls() if name != CONTROL])
def test_a_call_wakes_no_thread_of_torch(woken, name):
    assert woken[name] == 0


@on_linux
def test_threads_of_torch_would_be_seen(woken):
    assert woken[CONTROL] == 3


class Machine:
    """A machine with two cores: the seconds that its cores were idle and this process computed."""

    def __init__(self) -> None:
        self.clock = self.idle = self.used = 0.0
        self.left = math.inf
        self.free = FreeCores(
            lambda: self.idle, lambda: self.used, lambda: self.clock, lambda: self.left
        )

    def run(self, seconds: float, *, ours: float, others: float) -> float:
        """The free cores after a time in which this process and others used so many cores."""
        self.clock += seconds
        self.used += ours * seconds
        self.idle += (2 - ours - others) * seconds
        return self.free()


def test_cores_that_were_idle_or_ours_are_free():
    machine = Machine()
    assert machine.run(1, ours=0, others=0) == pytest.approx(2)
    assert machine.run(3, ours=2, others=0) == pytest.approx(2)
    assert machine.run(0.5, ours=1, others=1) == pytest.approx(1)
    assert machine.run(60, ours=0, others=0.5) == pytest.approx(1.5)
    assert machine.run(1, ours=0.5, others=1.5) == pytest.approx(0.5)


def test_after_a_pause_the_processes_that_compute_now_count():
    """In an hour without a call another process computes for a minute: the average hides it."""
    machine = Machine()
    machine.run(3600, ours=0, others=0)
    machine.left = 1
    assert machine.run(3600, ours=0, others=1 / 60) == 1
    machine.left = 2
    assert machine.run(3600, ours=0, others=1 / 60) == pytest.approx(2, abs=0.02)


def test_without_a_pause_only_the_average_counts():
    machine = Machine()
    machine.left = 0
    assert machine.run(0.5, ours=0, others=0) == pytest.approx(2)


@on_linux
def test_this_machine_tells_how_many_cores_are_left():
    assert cores._cores_left() <= (os.cpu_count() or 1)


def test_cores_are_measured_over_at_least_a_tenth_of_a_second():
    machine = Machine()
    assert machine.run(0.05, ours=1, others=1) == math.inf
    assert machine.run(0.06, ours=1, others=1) == pytest.approx(1)
    assert machine.run(0.09, ours=0, others=0) == pytest.approx(1)


@pytest.mark.parametrize("said", ["", "12.5", "12.5 x", "12.5 0.00\n", None])
def test_all_cores_are_free_if_idle_times_are_unknown(said, tmp_path, monkeypatch):
    uptime = tmp_path / "uptime"
    if said is not None:
        uptime.write_text(said)
    monkeypatch.setattr(cores, "_UPTIME", uptime)
    seconds = iter(range(9))
    free = FreeCores(clock=lambda: next(seconds))
    assert free() == math.inf


@pytest.mark.parametrize("said", ["", "0.1 0.2 0.3", "0.1 0.2 0.3 x/100 4", None])
def test_all_cores_are_left_if_the_load_is_unknown(said, tmp_path, monkeypatch):
    loadavg = tmp_path / "loadavg"
    if said is not None:
        loadavg.write_text(said)
    monkeypatch.setattr(cores, "_LOADAVG", loadavg)
    assert cores._cores_left() == math.inf


@pytest.mark.concurrent
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_starts_its_own_threads():
    """It does not have its parent's threads, so work given to them would wait for ever."""
    code = """if True:
        import os
        from trimtab_server.solver.backends.cpu import threads
        pool = threads._pool(1)
        pool.submit(int).result()
        if os.fork() == 0:
            os._exit(threads._pool(1).submit(lambda: 7).result(timeout=30))
        print(os.waitstatus_to_exitcode(os.wait()[1]))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "7\n", done.stderr


@pytest.mark.parametrize(
    ("quota", "found"),
    [("max 100000", math.inf), ("150000 100000", 1.5), ("", math.inf), (None, math.inf)],
)
def test_a_containers_quota_bounds_the_cores(quota, found, tmp_path, monkeypatch):
    file = tmp_path / "cpu.max"
    if quota is not None:
        file.write_text(f"{quota}\n")
    monkeypatch.setattr(cores, "_QUOTA", file)
    assert cores.quota_cores() == found


@pytest.mark.parametrize(("quota", "number"), [(1.5, 1), (1.8, 2), (3.0, 3), (math.inf, 4)])
@pytest.mark.usefixtures("threads")
def test_no_more_threads_work_than_the_quota_has_cores(quota, number, monkeypatch):
    monkeypatch.setattr(FREE_CORES, lambda: 64.0)
    monkeypatch.setattr(QUOTA_CORES, quota)
    torch.set_num_threads(4)
    assert threads_for(64) == number


@on_linux
def test_this_machine_tells_how_long_its_cores_were_idle():
    assert 0 < cores._idle_seconds() < math.inf


def threads_for(batch: int, nanoseconds: float = math.inf) -> int:
    """For how many threads a batch is divided."""
    parts: list[tuple[int, int]] = []
    for_parts(batch, lambda *part: parts.append(part), nanoseconds=nanoseconds)
    return max(1, len(parts) // _PARTS_PER_THREAD)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(
    ("free", "wanted"), [(0.3, 1), (1.0, 1), (1.7, 1), (1.8, 2), (2.0, 2), (3.1, 3), (64.0, 4)]
)
def test_no_more_threads_work_than_cores_are_free(free, wanted, monkeypatch):
    torch.set_num_threads(4)
    monkeypatch.setattr(FREE_CORES, lambda: free)
    assert threads_for(64) == wanted


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(("share", "wanted"), [(0.1, 1), (1.9, 1), (2.0, 2), (3.5, 3), (9.0, 4)])
def test_no_thread_is_woken_for_too_little_work(share, wanted):
    torch.set_num_threads(4)
    assert threads_for(64, share * _WORTH_NS / 64) == wanted


@pytest.mark.usefixtures("threads")
def test_with_one_thread_cores_are_not_measured(monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.setattr(FREE_CORES, lambda: pytest.fail("asked"))
    assert threads_for(64) == 1
