"""`trimtab place` and `status`, with a real server and with the solver in this process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from tests.client.service import Failure, RunningService
from tests.servers import ServerProcess
from tests.tools.cli.conftest import Cli
from trimtab.v1alpha1 import deployment_service_pb2 as pb
from trimtab_client import Placement
from trimtab_client.health import SOLVER_SERVICE
from trimtab_server.solver import evaluate
from trimtab_tools.formats import read_placement

TOPOLOGY = ["--gpus", "4", "--replicas", "12"]
LOAD = np.random.default_rng(5).lognormal(sigma=0.8, size=(2, 8)).round(3)
TLS = Path(__file__).parents[2] / "client" / "tls"


@pytest.fixture
def load_file(tmp_path: Path) -> Path:
    np.savez(tmp_path / "load.npz", load=LOAD, other=np.arange(3))
    return tmp_path / "load.npz"


@pytest.fixture
def trace_file(tmp_path: Path) -> Path:
    (tmp_path / "trace.json").write_text(json.dumps({"counts": [LOAD.tolist()] * 2}))
    return tmp_path / "trace.json"


@pytest.fixture(params=[pytest.param("server", marks=pytest.mark.process), "local"])
def solver(request: pytest.FixtureRequest) -> list[str]:
    if request.param == "local":
        return ["--local"]
    return ["--server", request.getfixturevalue("server").address]


def test_place_prints_a_table(cli: Cli, solver: list[str], load_file: Path) -> None:
    out = cli.out("place", load_file, *TOPOLOGY, *solver)

    untouched = Placement.untouched(2, 8, 12, 4).balance(LOAD).imbalance
    title, _, header, before, after, _, moves = out.splitlines()
    assert title.startswith("2 layers of 8 experts in 12 slots on 4 GPUs, planned by ")
    assert header.split() == ["imbalance", "worst", "median", "mean", "balancedness", "gap"]
    assert before.split()[:2] == ["untouched", f"{untouched.max():.4f}"]
    assert after.split()[0] == "placed"
    assert moves == "moves: not counted without --current"


def test_json_has_the_whole_answer(cli: Cli, solver: list[str], load_file: Path) -> None:
    document = cli.json("place", load_file, *TOPOLOGY, *solver)

    placement = Placement.of(document["placement"]["phy2log"], 8, 4)
    assert document["placement"]["digest"] == placement.digest.hex()
    imbalance = np.array(document["after"]["imbalance"])
    np.testing.assert_allclose(imbalance, placement.balance(LOAD).imbalance, rtol=1e-12)
    assert document["before"]["layout"] == "untouched"
    assert document["moves"] == []
    summary = document["summary"]
    assert summary["after"]["worst"] == max(document["after"]["imbalance"])
    assert summary["num_gpus"] == 4
    assert summary["moves"] == 0


def test_the_gap_is_the_distance_to_the_lowest_possible_imbalance(
    cli: Cli, solver: list[str], load_file: Path
) -> None:
    command = ["place", load_file, "--gpus", "4", "--replicas", "8", *solver]
    untouched = Placement.untouched(2, 8, 8, 4)
    bound = evaluate(untouched.phy2log.copy(), LOAD, 4).bound.numpy()
    assert bound.max() > 1

    rows = cli.out(*command).splitlines()[3:5]
    document = cli.json(*command)

    for row, name in zip(rows, ("before", "after"), strict=True):
        layers, summary = document[name], document["summary"][name]
        assert layers["bound"] == bound.tolist()
        assert layers["gap"] == np.maximum(np.array(layers["imbalance"]) / bound - 1, 0).tolist()
        assert summary["gap"] == np.mean(layers["gap"])
        assert row.split()[-1] == f"{summary['gap']:.4f}"
    assert document["summary"]["after"]["gap"] < document["summary"]["before"]["gap"]


def test_server_and_local_solver_give_the_same_placement(
    cli: Cli, server: ServerProcess, trace_file: Path
) -> None:
    options = [
        *(*TOPOLOGY, "--nodes", "2", "--groups", "4", "--effort", "balanced", "--seed", "7"),
        *("--max-iterations", "-1", "--restarts", "3", "--top-k", "2", "--objective", "range"),
    ]
    remote, local = (
        cli.json("place", trace_file, "--sum", *options, *where)
        for where in (["--server", server.address], ["--local"])
    )

    for document in (remote, local):
        del document["summary"]["solver"], document["summary"]["seconds"]
    assert remote == local


@pytest.mark.parametrize("suffix", ["npz", "json"])
def test_a_written_placement_can_be_the_next_current_one(
    cli: Cli, solver: list[str], load_file: Path, tmp_path: Path, suffix: str
) -> None:
    first, second = tmp_path / f"first.{suffix}", tmp_path / f"second.{suffix}"
    other = tmp_path / "other.json"
    other.write_text(json.dumps(LOAD[:, ::-1].tolist()))
    cli.out("place", load_file, *TOPOLOGY, *solver, "--output", first)
    command = ["place", other, *TOPOLOGY, *solver, "--current", first, "--output", second]

    document = cli.json(*command, "--max-moves-per-layer", "1")

    assert document["before"]["layout"] == "current"
    assert 1 <= len(document["moves"]) <= 2
    for move in document["moves"]:
        assert document["placement"]["phy2log"][move["layer"]][move["slot"]] == move["expert"]
        assert move["source_gpus"]
    assert _written(second) == document["placement"]["phy2log"]
    assert "moves: " in cli.out(*command, "--max-moves", "1")


def _written(path: Path) -> Any:
    if path.suffix == ".json":
        return json.loads(path.read_text())["placement"]["phy2log"]
    with np.load(path) as arrays:
        assert arrays["log2phy"].shape[:2] == arrays["logcnt"].shape == (2, 8)
        assert (arrays["imbalance_after"] >= arrays["imbalance_bound"]).all()
        return arrays["phy2log"].tolist()


@pytest.mark.parametrize("choice", [["--index", "1"], ["--index", "-1"], ["--sum"]])
def test_one_load_of_a_trace_is_chosen(cli: Cli, trace_file: Path, choice: list[str]) -> None:
    document = cli.json("place", trace_file, *TOPOLOGY, "--local", *choice)

    placement = Placement.of(document["placement"]["phy2log"], 8, 4)
    imbalance = placement.balance(LOAD).imbalance.tolist()
    assert imbalance == pytest.approx(document["after"]["imbalance"])


def test_a_named_array_is_read(cli: Cli, tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", a=LOAD, b=LOAD)
    command = ["place", tmp_path / "two.npz", *TOPOLOGY, "--local"]

    assert "holds no 'load', but a, b: name one of them by --key" in cli.err(*command)
    assert "placed" in cli.out(*command, "--key", "b")


def test_the_loads_of_several_files_are_added_up(cli: Cli, tmp_path: Path) -> None:
    """As the ranks of a group write them, each in its own file."""
    counts = np.random.default_rng(0).integers(0, 100, (3, 2, 8)).astype(np.int32)
    paths = [tmp_path / f"{rank}.npy" for rank in range(3)]
    for path, load in zip(paths, counts, strict=True):
        np.save(path, load)
    document = cli.json("place", *paths, *TOPOLOGY, "--local")
    placement = Placement.of(document["placement"]["phy2log"], 8, 4)
    imbalance = placement.balance(counts.sum(0)).imbalance.tolist()
    assert imbalance == pytest.approx(document["after"]["imbalance"])

    np.save(paths[2], counts[2, :1])
    err = cli.err("place", *paths, *TOPOLOGY, "--local")
    assert f"{paths[2]}: the load is [1, 8], but {paths[0]} has [2, 8]" in err


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("map.json", ["--output-format", "sglang"]),
        ("map.json", ["--output-format", "vllm-ascend"]),
        ("map.yaml", ["--first-layer", "3"]),
        ("map.pt", []),
        ("map.csv", []),
        ("map.parquet", []),
        ("map.npy", []),
    ],
)
def test_a_placement_for_an_engine_is_written_and_can_be_the_current_one(
    cli: Cli, load_file: Path, tmp_path: Path, name: str, flags: list[str]
) -> None:
    path = tmp_path / name
    place = ["place", load_file, *TOPOLOGY, "--local"]
    placed = cli.json(*place, "--output", path, *flags)["placement"]["phy2log"]
    assert read_placement(path).tolist() == placed
    again = cli.json(*place, "--current", path, "--max-moves", "0")
    assert again["placement"]["phy2log"] == placed
    if name == "map.yaml":
        assert "3: [" in path.read_text()


def test_a_format_that_does_not_fit_is_refused(cli: Cli, load_file: Path, tmp_path: Path) -> None:
    place = ["place", load_file, *TOPOLOGY, "--local"]
    err = cli.err(*place, "--format", "sglang")
    assert f"{load_file}: a file of the format sglang ends in .pt or .json" in err
    assert "invalid choice: 'onnx'" in cli.err(*place, "--format", "onnx", code=2)
    for flag in (["--output-format", "npz"], ["--first-layer", "1"], ["--current-format", "npz"]):
        assert f"{flag[0]} needs --" in cli.err(*place, *flag, code=2)
    for number in ("-1", str(10**9)):
        out = ["--output", tmp_path / "map.yaml", "--first-layer", number]
        assert f"--first-layer {number} is not in [0, " in cli.err(*place, *out, code=2)
    assert "No such file" in cli.err(*place, "--output", tmp_path / "no" / "map.pt")
    path = tmp_path / "map.bin"
    assert "placed" in cli.out(*place, "--output", path, "--output-format", "npz")
    assert "placed" in cli.out(*place, "--current", path, "--current-format", "npz")


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("load.txt", b"1 2", "ends in none of .npz, "),
        ("load.json", b"[1, ", "is not JSON"),
        ("load.json", b"[[1, 2], [3]]", "load[1]: has 1 entries, but"),
        ("load.json", b"[1, 2]", "the load is [2], not [layers, experts]"),
        ("load.npz", b"no zip", "is not an .npz file"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(
    cli: Cli, tmp_path: Path, name: str, content: bytes, complaint: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)

    err = cli.err("place", path, *TOPOLOGY, "--local")

    assert err.startswith("trimtab: ")
    assert complaint in err
    assert "nowhere.npz" in cli.err("place", "nowhere.npz", *TOPOLOGY, "--local")


def test_an_invalid_request_is_explained(cli: Cli, solver: list[str], load_file: Path) -> None:
    err = cli.err("place", load_file, "--gpus", "5", "--replicas", "12", *solver)

    assert "num_" in err
    assert "12" in err


def test_a_choice_needs_a_trace_and_a_trace_needs_a_choice(
    cli: Cli, load_file: Path, trace_file: Path
) -> None:
    for choice in (["--index", "0"], ["--sum"]):
        err = cli.err("place", load_file, *TOPOLOGY, "--local", *choice, code=2)
        assert "holds one load, not a trace" in err
    err = cli.err("place", trace_file, *TOPOLOGY, "--local", code=2)
    assert "holds 2 loads: choose one by --index, or --sum them" in err
    err = cli.err("place", trace_file, *TOPOLOGY, "--local", "--index", "2")
    assert "--index 2: " in err


def test_an_imbalance_that_is_not_finite_is_null_in_json(
    cli: Cli, service: RunningService, tmp_path: Path
) -> None:
    """The scripted server accepts loads whose sum is beyond float64."""
    (tmp_path / "load.json").write_text(json.dumps([[1.5e308] * 8, [1.0] * 8]))
    command = ["place", tmp_path / "load.json", *TOPOLOGY, "--server", service.target]

    document = cli.json(*command)

    first, second = document["before"]["imbalance"]
    assert first is None
    assert second >= 1
    assert document["summary"]["after"]["mean"] is None


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--gpus", "4"], "required: --replicas"),
        ([*TOPOLOGY, "--effort", "heroic"], "invalid choice: 'heroic'"),
        ([*TOPOLOGY, "--max-moves", "3"], "a move budget needs --current"),
        ([*TOPOLOGY, "--index", "0", "--sum"], "not allowed with"),
        ([*TOPOLOGY, "--output", "placement.txt"], "ends in none of .npz, "),
        ([*TOPOLOGY, "--timeout", "0"], "timeout: 0.0 is not above 0"),
        ([*TOPOLOGY, "--tls-cert", "c.pem"], "cert and key belong together"),
        ([*TOPOLOGY, "--tls-key", "c.key"], "cert and key belong together"),
    ],
)
def test_a_wrong_command_line_is_explained(
    cli: Cli, load_file: Path, options: list[str], complaint: str
) -> None:
    assert complaint in cli.err("place", load_file, *options, code=2)


def test_status_is_a_table_or_json(cli: Cli, server: ServerProcess) -> None:
    out = cli.out("status", "--server", server.address)
    document = cli.json("status", "--server", server.address)

    assert server.address in out
    assert out.count("SERVING") == 2
    assert document["serving"] is True
    assert [s["status"] for s in document["services"]] == ["SERVING", "SERVING"]
    assert "\nstore        works\n" in out
    assert document["status"]["version"] in out
    assert document["status"]["store_failure"] is None
    assert all(s["latency_seconds"] > 0 for s in document["services"])


def test_status_says_whether_the_store_works(cli: Cli, service: Any) -> None:
    for name in ("", SOLVER_SERVICE):
        service.health.set(name, 2 if name == "" else 1)
    failure = "store /var/t.db: database or disk is full"
    service.deployments.answer = pb.GetServerStatusResponse(
        version="1.2", term=3, uptime_seconds=61.4, store_failure=failure, sessions=8
    )
    out = cli.out("status", "--server", service.target, code=1)
    health, server = out.split("\n\n")
    assert [line.split()[-3] for line in health.splitlines()[1:]] == ["NOT_SERVING", "SERVING"]
    assert dict(line.split(None, 1) for line in server.splitlines()[1:4]) == {
        "store": f"FAILS: {failure}",
        "version": "1.2",
        "term": "3",
    }
    document = cli.json("status", "--server", service.target, code=1)
    assert document["serving"] is False
    assert document["status"]["store_failure"] == failure
    assert document["status"]["sessions"] == 8


def test_status_of_a_server_too_old_to_tell_its_own_is_its_health(cli: Cli, service: Any) -> None:
    for name in ("", SOLVER_SERVICE):
        service.health.set(name, 1)
    unknown = Failure(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
    service.deployments.failures.extend([unknown, unknown])
    assert len(cli.out("status", "--server", service.target).splitlines()) == 3
    assert cli.json("status", "--server", service.target)["status"] is None


def test_status_of_a_server_that_is_not_ready_is_a_failure(cli: Cli, service: Any) -> None:
    """The scripted server has no solver service."""
    service.health.set("", 1)

    assert "SERVICE_UNKNOWN" in cli.out("status", "--server", service.target, code=1)


@pytest.mark.parametrize(
    "options",
    [
        ["--tls"],
        ["--tls-ca", str(TLS / "ca.pem")],
        ["--tls-cert", str(TLS / "client.pem"), "--tls-key", str(TLS / "client.key")],
        ["--tls-server-name", "trimtab.test"],
        ["--tls-server-name", ""],
    ],
    ids=" ".join,
)
def test_with_any_tls_option_no_call_is_made_in_plain_text(
    cli: Cli, server: ServerProcess, options: list[str]
) -> None:
    err = cli.err("status", "--server", server.address, *options)

    assert "Check the address" in err


def test_the_environment_names_the_server(
    cli: Cli, server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIMTAB_SERVER", server.address)
    assert server.address in cli.out("status")

    assert "Check the address" in cli.err("status", "--server", "unix:/nowhere")


@pytest.mark.process
def test_without_the_solver_local_says_how_to_get_it(load_file: Path) -> None:
    code = (
        "import sys; sys.modules['trimtab_server'] = None\n"
        "from trimtab_tools.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "place", load_file, *TOPOLOGY, "--local"]

    ended = subprocess.run(command, capture_output=True, text=True, check=False)

    assert ended.returncode == 1
    assert "pip install 'trimtab-tools[server]'" in ended.stderr


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        ("deployments get", "required: NAME"),
        ("deployments create d", "required: --layers, --experts, --slots, --gpus"),
        ("deployments update d --mode on", "invalid choice: 'on'"),
        ("deployments roll-back d", "required: VERSION"),
        ("deployments import d", "required: FILE"),
        ("deployments frobnicate", "invalid choice: 'frobnicate'"),
        ("deployments --json list", "unrecognized arguments: list"),
        ("history", "required: NAME"),
        ("watch", "required: NAME"),
        ("trigger", "required: NAME"),
        ("pause", "required: NAME"),
        ("pause d", "required: REASON"),
        ("resume", "required: NAME"),
        ("check-history", "required: FILE"),
    ],
)
def test_a_wrong_command_line_is_a_usage_error(cli: Cli, command: str, complaint: str) -> None:
    assert complaint in cli.err(*command.split(), code=2)


def test_help_has_examples_and_exit_codes(cli: Cli) -> None:
    assert "exit codes:" in cli.out("--help")
    commands = "place status history decisions watch trigger pause resume check-history"
    for command in commands.split():
        assert "examples:\n" in cli.out(command, "--help"), command
    of_deployments = "list get create update forget-load delete pin unpin roll-back rollback export"
    of_deployments += " import"
    for words in ([], *([command] for command in of_deployments.split())):
        assert "examples:\n  trimtab deployments" in cli.out("deployments", *words, "--help"), words


def test_the_version_is_the_packages(cli: Cli) -> None:
    assert cli.out("--version").startswith("trimtab 0.")
