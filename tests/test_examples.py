"""The examples run, and do what they say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import server_process

ENGINE = Path(__file__).parents[1] / "examples" / "engine.py"


@pytest.mark.slow
@pytest.mark.concurrent
def test_the_engine_of_four_ranks_is_balanced_and_no_token_comes_out_wrong() -> None:
    with server_process() as server:
        done = subprocess.run(
            [sys.executable, ENGINE, "--server", server.address, "--steps", "240"],
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")
    rows = re.findall(r"GPU (\d\.\d+), (\d+) switches, (\d+) wrong tokens", done.stdout)
    assert len(rows) == 240 // 40
    assert {int(wrong) for *_, wrong in rows} == {0}
    assert int(rows[-1][1]) >= 2
    assert min(float(imbalance) for imbalance, *_ in rows[:3]) < float(rows[0][0])
