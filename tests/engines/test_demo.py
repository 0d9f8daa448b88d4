"""`make demo-vllm`: what it shows is so, and all places tell the same."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.engines.demo import INTERVALS, SHIFT
from tests.engines.groups import ROOT, require_engines

pytestmark = [pytest.mark.process, pytest.mark.slow]


def test_vllm_follows_and_the_command_and_the_metrics_tell_the_same(starts_processes):
    require_engines()
    ran = subprocess.run(
        [sys.executable, "-m", "tests.engines.demo"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    rows = re.findall(r"^ +(\d+) +(\d\.\d{3}) +(\d+) +(\d+)$", ran.stdout, re.MULTILINE)
    assert [int(interval) for interval, *_ in rows] == list(range(1, INTERVALS + 1))
    assert {int(wrong) for *_, wrong in rows} == {0}
    imbalance = [float(each) for _, each, *_ in rows]
    for first, last in ((0, SHIFT - 1), (SHIFT, INTERVALS - 1)):
        assert imbalance[last] - 1 < (imbalance[first] - 1) / 3
    [generation] = re.findall(r"^in force +1\.(\d+)$", ran.stdout, re.MULTILINE)
    assert f'trimtab_placement_generation{{deployment="demo"}} {generation}.0' in ran.stdout
    assert 'trimtab_deployment_switched_by{by="engine",deployment="demo"} 1.0' in ran.stdout
    # What the last answer led to is known only to the call after it.
    moved = sum(int(moves) > 0 for _, _, moves, _ in rows)
    assert moved - 1 <= int(generation) <= moved
