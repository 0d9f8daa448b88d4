"""vLLM's own tests of its policy, with Trimtab's policies in its place."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.engines.groups import FOLDER, environ_of, require_engines
from tests.engines.prepare import TESTS
from tests.servers import server_process

pytestmark = [pytest.mark.process, pytest.mark.slow]

OTHERWISE = {
    "test_basic_rebalance": "expects one map, slot by slot; there are others as good",
    "test_extreme_weight_imbalance": (
        "expects more replicas of the hot expert than of any other, where a replica cannot help"
    ),
    "test_parameter_validation": "expects AssertionError; here it is InvalidArgumentError",
}
"""What the drop-in does otherwise, and why."""


@pytest.fixture(scope="module", autouse=True)
def _engines(starts_processes: None) -> None:
    require_engines()


def ran(policy: str, folder: Path, **environ: str) -> dict[str, str]:
    """How each test ended: "passed", "skipped" or "failure"."""
    report = folder / "report.xml"
    parts = "server", "protos", "protocol"
    # Without the settings that pytest would find above the file.
    options = "-c", os.devnull, "-p", "no:cacheprovider", "-p", "tests.engines.tested_policy"
    result = subprocess.run(
        [
            FOLDER / "bin" / "python",
            "-m",
            "pytest",
            *options,
            "--junitxml",
            report,
            FOLDER / "vllm-tests" / TESTS,
        ],
        cwd=folder,
        env={**environ_of("vllm", ours=parts), "TESTED_POLICY": policy, **environ},
        capture_output=True,
        text=True,
        check=False,
    )
    assert report.exists(), result.stdout + result.stderr
    cases = list(ET.parse(report).getroot().iter("testcase"))  # noqa: S314 - our own
    return {case.attrib["name"]: ([each.tag for each in case] or ["passed"])[0] for case in cases}


def test_the_drop_in_passes_but_for_what_it_does_otherwise(tmp_path):
    ended = ran("drop-in", tmp_path)
    assert {name for name, how in ended.items() if how == "failure"} == set(OTHERWISE)
    assert sum(how == "passed" for how in ended.values()) == 12


def test_the_plug_in_leaves_calls_without_a_map_to_the_engine(tmp_path):
    with server_process() as server:
        ended = ran(
            "plug-in", tmp_path, TRIMTAB_TARGET=server.address, TRIMTAB_DEPLOYMENT="own-tests"
        )
    assert not [name for name, how in ended.items() if how == "failure"]
    assert sum(how == "passed" for how in ended.values()) == 15
