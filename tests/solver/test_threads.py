"""What the solver's calls leave alone: torch's threads, for which a busy host has no cores."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.solver.thread_counts import CONTROL, TASKS, calls

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(not TASKS.exists(), reason="threads are counted as Linux does")


@pytest.fixture(scope="module")
def woken() -> dict[str, int]:
    """How many threads each call left that are not Trimtab's own, in a process that is new."""
    command = [sys.executable, "-m", "tests.solver.thread_counts"]
    ran = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    counts: dict[str, int] = json.loads(ran.stdout)
    return counts


@pytest.mark.parametrize("name", [name for name in calls() if name != CONTROL])
def test_a_call_wakes_no_thread_of_torch(woken, name):
    assert woken[name] == 0


def test_threads_of_torch_would_be_seen(woken):
    assert woken[CONTROL] == 3
