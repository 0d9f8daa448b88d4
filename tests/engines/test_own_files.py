"""Files between Trimtab and the engines' own readers and writers."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.engines.groups import FOLDER, ROOT, environ_of, require_engines
from tests.engines.sglang_group import EXPERTS, INTERVAL, LAYERS, RANKS, SLOTS
from trimtab_client import Placement
from trimtab_tools.formats import SavedPlacement, read_load, read_placement, write_placement

pytestmark = [pytest.mark.process, pytest.mark.slow]


@pytest.fixture
def placement() -> Placement:
    """Each rank has different experts, and no two layers are alike."""
    rows = [np.roll(np.arange(SLOTS) % EXPERTS, SLOTS // RANKS * layer) for layer in range(LAYERS)]
    return Placement.of(np.stack(rows), EXPERTS, RANKS)


@pytest.mark.parametrize("end", ["json", "pt"])
def test_sglang_starts_from_a_placement(hosts, tmp_path, placement, end):
    path = tmp_path / f"location.{end}"
    write_placement(SavedPlacement(placement, "", {}), path, "sglang")
    ranks = hosts.group("sglang", {"chunk": None, "location": str(path)})
    seen = ranks.run(1)
    assert seen["maps"] == placement.phy2log.tolist() == read_placement(path).tolist()
    assert seen["wrong"] == 0


def test_sglang_plans_for_a_load(hosts, tmp_path):
    """`logical_count` makes SGLang plan by itself, from the start."""
    load = np.ones((LAYERS, EXPERTS), np.int64)
    load[:, 5] = 1000
    path = tmp_path / "location.json"
    path.write_text(json.dumps({"logical_count": load.tolist()}))
    assert read_load(path).tolist() == load.tolist()
    seen = hosts.group("sglang", {"chunk": None, "location": str(path)}).run(1)
    assert (np.array(seen["maps"]) == 5).sum(1).tolist() == [SLOTS - EXPERTS + 1] * LAYERS


def test_what_sglangs_recorder_writes_is_what_the_ranks_have_routed(hosts, tmp_path):
    steps = INTERVAL - 3  # so that a part of the ring is not filled
    for mode in ("stat", "per_pass"):
        folder = tmp_path / mode
        ranks = hosts.group("sglang", {"chunk": None, "recorder": mode})
        ranks.run(steps)
        routed = np.array(ranks.dump(folder))
        files = sorted(folder.glob("*.pt"), key=lambda path: path.name.split("_")[-1])
        if mode == "stat":
            [file] = files
            assert read_load(file).tolist() == routed.sum(0).tolist()
            continue
        for file, of_rank in zip(files, routed, strict=True):
            load = read_load(file)
            assert load.shape == (steps, LAYERS, EXPERTS)
            assert load.sum(0).tolist() == of_rank.tolist()
            assert read_placement(file).shape == (LAYERS, SLOTS)


def test_what_vllm_ascend_reads_and_writes(tmp_path, placement):
    require_engines()
    by_device = placement.phy2log.reshape(LAYERS, RANKS, -1).tolist()
    ours, theirs = tmp_path / "ours.json", tmp_path / "theirs.json"
    write_placement(SavedPlacement(placement, "", {}), ours, "vllm-ascend")
    assert ascend(ours, "") == by_device
    assert ascend(theirs, json.dumps(by_device)) == by_device
    assert read_placement(theirs).tolist() == placement.phy2log.tolist()


def ascend(path: Path, given: str) -> object:
    """What vllm-ascend reads, after it has written what is given."""
    done = subprocess.run(
        [FOLDER / "bin" / "python", "-m", "tests.engines.ascend_files", path],
        cwd=ROOT,
        env=environ_of("vllm", "vllm-ascend"),
        input=given,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
