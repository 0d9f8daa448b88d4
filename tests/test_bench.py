"""The benchmarks run, take planners of others in, and survive those that are broken."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.bench.__main__ import main
from tests.bench.judge import judge
from tests.bench.loads import lognormal, realistic
from tests.bench.peers import load_peer
from tests.bench.problems import Problem, problems
from trimtab_server.domain.errors import InvalidArgumentError
from trimtab_server.domain.topology import Topology
from trimtab_server.solver import Settings, place

ROOT = Path(__file__).parents[1]
SIGNATURE = "def rebalance_experts(weight, num_replicas, num_groups, num_nodes, num_gpus):\n"
ROUND_ROBIN = f"""
import torch

{SIGNATURE}
    assert weight.dtype == torch.float32 and weight.device.type == "cpu"
    assert num_groups > 1 or num_nodes == 1
    weight.zero_()  # planners may work in place
    slots = torch.arange(num_replicas) % weight.shape[1]
    return slots.repeat(len(weight), 1), "log2phy", "logcnt"
"""
PEERS = {
    "round_robin": (ROUND_ROBIN, "0."),
    "raises": (f"{SIGNATURE}    raise ValueError('what | ever')\n", "ValueError: what / ever"),
    "nonsense": (
        f"{SIGNATURE}    return weight.long() * 0, None\n",
        "InvalidArgumentError: phy2log: has 16 slots in each layer",
    ),
    "incomplete": (
        f"{SIGNATURE}    return [[0] * num_replicas] * len(weight)\n",
        "InvalidArgumentError: phy2log: expert 1 has no slot in layer 0",
    ),
    "nothing": (f"{SIGNATURE}    return None\n", "TypeError: "),
}


@pytest.fixture(scope="module")
def table(starts_processes: None, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What one run prints beside these peers, one that is no Python, and one without a function."""
    folder = tmp_path_factory.mktemp("peers")
    sources = {name: source for name, (source, _) in PEERS.items()}
    flags = []
    for name, source in {**sources, "no_python": "def (", "no_function": ""}.items():
        path = folder / f"{name}.py"
        path.write_text(source)
        flags += ["--peer", str(path)]
    command = [sys.executable, "-m", "tests.bench", "backends", "improve", "growth", "busy"]
    command += ["--quick", "--repeats", "1", "--backend", "reference", *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", PEERS)
def test_a_peer_gets_a_row_for_each_shape_whatever_it_does(table: str, name: str) -> None:
    rows = [line for line in table.splitlines() if f"{name}.py" in line]

    assert len(rows) == len(problems(quick=True))
    for row in rows:
        assert PEERS[name][1] in row.split(" | ")[2]


@pytest.mark.slow
def test_a_placement_that_splits_groups_is_marked(table: str) -> None:
    grouped, other = (line for line in table.splitlines() if "round_robin.py" in line)

    assert "(splits groups)" in grouped
    assert "(splits groups)" not in other


@pytest.mark.slow
@pytest.mark.parametrize("name", ["no_python", "no_function"])
def test_a_file_that_cannot_be_loaded_is_named(table: str, name: str) -> None:
    rows = [line for line in table.splitlines() if f"{name}.py" in line]

    assert len(rows) == 1
    assert rows[0].startswith("Not measured: peer:")


@pytest.mark.slow
def test_ours_stand_beside_the_peers(table: str) -> None:
    for name in ("reference, fast", "reference, balanced"):
        assert table.count(f"| {name} | 0.") == len(problems(quick=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    "title", ["Improve", "Growth with the number of layers", "Beside busy cores"]
)
def test_the_other_sections_asked_for_follow(table: str, title: str) -> None:
    assert f"### {title}" in table


def test_a_section_that_does_not_exist_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["make bench", "balnce"])

    with pytest.raises(SystemExit):
        main()

    assert "no section balnce" in capsys.readouterr().err


@pytest.mark.concurrent
def test_a_peer_may_answer_in_lists(tmp_path: Path) -> None:
    path = tmp_path / "lists.py"
    path.write_text(f"{SIGNATURE}    return [[0, 1, 2, 0]] * len(weight)\n")

    phy2log_LR = load_peer(str(path))(torch.ones(2, 3), Topology(4, 2))

    assert phy2log_LR.tolist() == [[0, 1, 2, 0]] * 2


def test_judge_refuses_a_placement_with_too_few_slots() -> None:
    problem = Problem("", realistic(2, 8), Topology(12, 4))

    with pytest.raises(InvalidArgumentError, match="has 8 slots in each layer"):
        judge(torch.arange(8).repeat(2, 1), problem)


@pytest.mark.parametrize(
    ("layers", "experts", "topology"),
    [
        (3, 32, Topology(40, 8)),
        (1, 8, Topology(8, 8)),
        (5, 16, Topology(64, 4)),
        (2, 24, Topology(25, 1)),
        (7, 64, Topology(128, 32)),
    ],
)
def test_the_yardstick_packs_as_evenly_as_greedy_packing(
    layers: int, experts: int, topology: Topology
) -> None:
    pytest.importorskip("numba")
    from tests.bench.yardsticks import plan_greedily

    problem = Problem("", lognormal(layers, experts, tokens=1 << 20), topology)
    load_LE = torch.from_numpy(problem.load)

    quality = judge(plan_greedily(load_LE, topology), problem)

    lpt = place(load_LE, topology, settings=Settings(max_iterations=0), backend="reference")
    # Alike but for rounding, and for replicas of one expert that share a GPU.
    assert quality.balancedness == pytest.approx(float(lpt.after.balancedness.mean()), abs=0.02)
