"""`trimtab deployments`, `watch` and `history`, against a scripted server."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import subprocess
import sys
from collections import deque
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from tests.client.operated import (
    DECISION_MESSAGE,
    DEPLOYMENT_MESSAGE,
    OTHER,
    PLACEMENT,
    POLICY_MESSAGE,
    SPEC_MESSAGE,
    placement_message,
    served_message,
)
from tests.client.service import Failure, RunningService, array_of
from tests.client.service import ScriptedDeployments as Scripted
from tests.tools.cli.conftest import Cli
from trimtab.v1alpha1 import deployment_service_pb2 as pb
from trimtab.v1alpha1 import switch_pb2
from trimtab_client import Placement, Policy, Version
from trimtab_server.engine.config import SessionConfig
from trimtab_server.policy.policy import Policy as ServerPolicy
from trimtab_tools.cli import main
from trimtab_tools.cli.deployments import policy_flags

V27, V7 = switch_pb2.Version(epoch=2, generation=7), switch_pb2.Version(generation=7)


@pytest.fixture(autouse=True)
def scripted(service: RunningService, monkeypatch: pytest.MonkeyPatch) -> Scripted:
    monkeypatch.setenv("TRIMTAB_SERVER", service.target)
    return service.deployments


def deployment(**status: Any) -> pb.Deployment:
    """A deployment with this status, and no other fields."""
    return pb.Deployment(
        spec=SPEC_MESSAGE,
        policy=pb.Policy(mode=pb.MODE_ACTIVE),
        status=pb.DeploymentStatus(**{"phase": "idle", "step": -1, **status}),
    )


def columns(text: str) -> list[list[str]]:
    """The cells of a table whose columns are separated by two blanks."""
    rows = (line.split("  ") for line in text.splitlines())
    return [[cell.strip() for cell in row if cell.strip()] for row in rows]


def test_a_list_has_a_line_for_each_deployment(cli: Cli, scripted: Scripted) -> None:
    scripted.answer = pb.ListDeploymentsResponse(deployments=[DEPLOYMENT_MESSAGE, deployment()])
    out = cli.out("deployments")

    assert out == cli.out("deployments", "list")
    header, busy, bare = columns(out)
    assert header == [
        *("deployment", "mode", "held", "workers", "absent", "in force", "predicted", "measured"),
        *("unused", "switch", "last decision"),
    ]
    assert busy == [
        *("d", "shadow", "paused, pinned", "1", "1", "2.7", "1.750", "2.250", "1.5 h", "offered"),
        "improved",
    ]
    first, second, _ = out.splitlines()
    for name, words in (("mode", "shadow"), ("held", "paused"), ("last decision", "improved")):
        assert first.index(name) == second.index(words)
    assert bare == ["d", "active", "-", "0", "0", "-", "-", "-", "-", "idle", "-"]


def test_a_deployment_that_is_paused_or_pinned_shows_its_mode_too(
    cli: Cli, scripted: Scripted
) -> None:
    paused = {"paused_reason": "maintenance"}
    pinned = {"pinned_digest": OTHER.digest}
    modes = [deployment(**status) for status in ({**paused, **pinned}, pinned, paused, {})]
    scripted.answer = pb.ListDeploymentsResponse(deployments=modes)

    rows = columns(cli.out("deployments"))[1:]
    assert [row[1:3] for row in rows] == [
        ["active", "paused, pinned"],
        ["active", "pinned"],
        ["active", "paused"],
        ["active", "-"],
    ]


def test_without_deployments_only_a_header_is_printed(cli: Cli, scripted: Scripted) -> None:
    scripted.answer = pb.ListDeploymentsResponse()
    assert cli.out("deployments").split()[0] == "deployment"
    assert cli.json("deployments") == []


def test_get_shows_everything(cli: Cli, scripted: Scripted) -> None:
    scripted.answer = pb.GetDeploymentResponse(deployment=DEPLOYMENT_MESSAGE)
    out = cli.out("deployments", "get", "d")

    head, status, policy, points, workers = out.split("\n\n")
    assert head == (
        "d: 3 layers of 4 experts in 6 slots on 2 GPUs, 2 nodes, 2 router groups, of m, "
        "from its layer 5 on"
    )
    shown = dict(line.split("  ", 1) for line in status.splitlines() if not line.startswith(" "))
    shown = {name: value.strip() for name, value in shown.items()}
    assert shown == {
        "mode": "shadow, paused, pinned",
        "switched by": "engine",
        "paused": "maintenance",
        "pinned to": OTHER.digest.hex(),
        "in force": "2.7",
        "digest": PLACEMENT.digest.hex(),
        "in force for": "12.5 s",
        "switch": "offered",
        "switching to": "2.8",
        "not ready": "the switch to 2.8 is offered",
        "workers": "1 connected, 1 absent",
        "unused for": "1.5 h",
        "sessions refused": "3, the last to 'w2': it does not fit",
        "step": "99",
        "oldest report": "1.5 s",
        "imbalance predicted": "2.500 mean, 2.000 median, 3.000 worst layer, of 7 with load",
        "imbalance measured": "3.500 mean, 3.000 median, 4.000 worst layer, of 7 with load",
        "imbalance in shadow": "1.375 mean, 1.250 median, 1.500 worst layer, of 7 with load",
        "last decision": "improved, step 90, 2026-11-23 15:04:05Z",
        "last switch kept": "75%, of step 26",
        "decisions": "2 improved, 1 of_the_future",
    }
    (known,) = (line for line in status.splitlines() if line.startswith("  known"))
    assert known.split("  ")[-1].strip() == (
        "4096 tokens a layer, 1.50 times the variance of independent ones: imbalance up to 1.250 "
        "may be noise, predictions are right to 0.1250, moves must gain 2.0 times as much"
    )
    assert [line.split() for line in policy.splitlines()][1:4] == [
        ["mode", "shadow"],
        ["half_life_steps", "16"],
        ["window_steps", "0"],
    ]
    assert columns(points) == [
        ["can go back to", "in force since", "until", "cause", "imbalance"],
        ["1.0", "2026-11-23 15:00:00Z", "2026-11-23 16:00:00Z", "started", "1.500"],
        ["2.0", "-", "-", "unknown", "-"],
    ]
    assert [line.split() for line in workers.splitlines()[1:]] == [
        ["w0", "connected", "0", "5", "99", "0.5", "s"],
        ["w1", "absent", "1", "4", "-", "-"],
    ]


def test_missing_values_are_not_shown(cli: Cli, scripted: Scripted) -> None:
    scripted.answer = pb.GetDeploymentResponse(deployment=deployment())
    out = cli.out("deployments", "get", "d")

    names = {line.split("  ")[0] for line in out.splitlines()}
    assert not names & {"paused", "pinned to", "switching to", "not ready", "imbalance in shadow"}
    assert names >= {"in force", "last decision"}


def test_json_has_everything_that_the_client_knows(cli: Cli, scripted: Scripted) -> None:
    scripted.answer = pb.GetDeploymentResponse(deployment=DEPLOYMENT_MESSAGE)
    document = cli.json("deployments", "get", "d")

    sizes = {"num_replicas": 6, "num_gpus": 2, "num_nodes": 2, "num_groups": 2}
    assert document["spec"]["topology"] == sizes
    assert document["policy"]["mode"] == "shadow"
    assert document["policy"]["replan_gap"] == 0.25
    status = document["status"]
    assert status["in_force"] == "2.7"
    assert [point["version"] for point in status["points"]] == ["1.0", "2.0"]
    assert status["points"][0] == {
        "version": "1.0",
        "cause": "started",
        "since": "2026-11-23T15:00:00+00:00",
        "until": "2026-11-23T16:00:00+00:00",
        "imbalance": 1.5,
    }
    assert status["digest"] == PLACEMENT.digest.hex()
    measured = {"worst": 4.0, "median": 3.0, "mean": 3.5, "layers": 7}
    assert status["balance"]["measured"] == measured
    assert status["last_decision"]["time"] == "2026-11-23T15:04:05.250000+00:00"
    assert status["last_decision"]["reason"] == "improved"
    assert [worker["last_step"] for worker in status["workers"]] == [99, None]


def test_a_number_that_is_not_finite_is_null(cli: Cli, scripted: Scripted) -> None:
    odd = pb.Imbalance(worst=float("inf"), median=float("nan"), mean=1.0)
    balance = pb.BalanceStatus(predicted=odd)
    scripted.answer = pb.ListDeploymentsResponse(deployments=[deployment(balance=balance)])

    [document] = cli.json("deployments")
    predicted = {"worst": None, "median": None, "mean": 1.0, "layers": 0}
    assert document["status"]["balance"]["predicted"] == predicted


CREATE = ["deployments", "create", "d", "--layers", "3", "--experts", "4"]
CREATE += ["--slots", "6", "--gpus", "2"]


def test_create_sends_its_arguments(cli: Cli, scripted: Scripted) -> None:
    scripted.answer = pb.CreateDeploymentResponse(deployment=deployment())
    more = [
        "--nodes",
        "2",
        "--groups",
        "2",
        "--model",
        "m",
        "--first-layer",
        "5",
        "--switched-by",
        "engine",
    ]
    out = cli.out(*CREATE, *more, "--mode", "shadow", "--least-gain", "0.5")

    assert out == (
        "d: 3 layers of 4 experts in 6 slots on 2 GPUs, 2 nodes, 2 router groups, of m, "
        "from its layer 5 on; active\n"
    )
    policy = pb.Policy(mode=pb.MODE_SHADOW, least_gain=0.5)
    assert scripted.requests == [pb.CreateDeploymentRequest(spec=SPEC_MESSAGE, policy=policy)]
    assert cli.json(*CREATE)["spec"]["num_layers"] == 3
    request = scripted.requests[-1]
    assert (request.spec.topology.num_nodes, request.spec.topology.num_groups) == (1, 1)
    assert (request.spec.model, request.spec.first_layer) == ("", 0)
    assert request.policy.ListFields() == []


@pytest.mark.parametrize("flag", ["--start-above", "--stop-below", "--min-gain"])
def test_a_former_setting_is_a_usage_error(cli: Cli, scripted: Scripted, flag: str) -> None:
    err = cli.err("deployments", "update", "d", flag, "1.05", code=2)
    field = flag.strip("-").replace("-", "_")
    assert f"policy.{field}: '1.05': it is no longer a setting" in err
    assert scripted.requests == []


def test_there_is_a_flag_for_every_field_of_a_policy() -> None:
    flags = {name for name, *_ in policy_flags._FLAGS} | {"mode"}
    assert flags == {field.name for field in dataclasses.fields(Policy)}


def test_update_sends_the_changes_and_shows_the_whole_policy(cli: Cli, scripted: Scripted) -> None:
    scripted.answer = pb.UpdatePolicyResponse(policy=POLICY_MESSAGE)
    update = ["deployments", "update", "d", "--max-moves-per-layer", "2", "--half-life-steps", "8"]
    out = cli.out(*update)

    rows = dict(line.split() for line in out.splitlines()[1:])
    assert rows.keys() == {field.name for field in dataclasses.fields(Policy)}
    assert (rows["mode"], rows["node_bandwidth"]) == ("shadow", "1e+11")
    changes = pb.Policy(max_moves_per_layer=2, half_life_steps=8.0)
    assert scripted.requests == [pb.UpdatePolicyRequest(deployment="d", policy=changes)]
    assert cli.json(*update)["least_gain"] == 0.02


def test_an_update_of_nothing_is_a_usage_error(cli: Cli, scripted: Scripted) -> None:
    err = cli.err("deployments", "update", "d", code=2)
    assert "nothing to change" in err
    assert "update NAME" in err
    assert scripted.requests == []


def test_forget_load_says_so(cli: Cli, scripted: Scripted) -> None:
    scripted.answer = pb.ForgetLoadResponse()
    assert cli.out("deployments", "forget-load", "d") == "d: its load is forgotten\n"
    told = {"deployment": "d", "load_forgotten": True}
    assert cli.json("deployments", "forget-load", "d") == told
    assert scripted.requests == [pb.ForgetLoadRequest(deployment="d")] * 2


def test_delete_says_so(cli: Cli, scripted: Scripted) -> None:
    scripted.answer = pb.DeleteDeploymentResponse()
    assert cli.out("deployments", "delete", "d") == "d is deleted\n"
    told = {"deployment": "d", "deleted": True, "error": None}
    assert cli.json("deployments", "delete", "d") == [told]
    assert scripted.requests == [pb.DeleteDeploymentRequest(deployment="d")] * 2
    # A name that is given twice is deleted once.
    assert cli.out("deployments", "delete", "d", "d") == "d is deleted\n"


def test_a_deployment_that_cannot_be_deleted_does_not_stop_the_others(
    scripted: Scripted, cli: Cli, capsys: pytest.CaptureFixture[str]
) -> None:
    refusal, delete = (
        Failure(grpc.StatusCode.NOT_FOUND, "there is no 'a'"),
        ["deployments", "delete"],
    )
    scripted.answer = pb.DeleteDeploymentResponse()
    scripted.failures.append(refusal)
    assert main([*delete, "a", "b", "c"]) == 1
    out, err = capsys.readouterr()
    assert out == "b is deleted\nc is deleted\n"
    assert err == "trimtab: a is not deleted: there is no 'a'\n"
    scripted.failures.append(refusal)
    assert main([*delete, "a", "b", "--json"]) == 1
    out, err = capsys.readouterr()
    assert [(each["deleted"], each["error"]) for each in json.loads(out)] == [
        (False, "there is no 'a'"),
        (True, None),
    ]
    assert err == "trimtab: a is not deleted: there is no 'a'\n"


def test_a_deployment_that_has_come_into_use_is_not_deleted(
    scripted: Scripted, capsys: pytest.CaptureFixture[str]
) -> None:
    idle, used = deployment(unused_seconds=5400.0), deployment(unused_seconds=0.25)
    names = []
    for each, name in ((idle, "a"), (idle, "b"), (used, "c")):
        names.append(pb.Deployment.FromString(each.SerializeToString()))
        names[-1].spec.name = name
    scripted.answer = deque(
        [
            pb.ListDeploymentsResponse(deployments=names),
            # Between the list and its turn, a worker of the first has come and gone.
            pb.GetDeploymentResponse(deployment=used),
            pb.GetDeploymentResponse(deployment=idle),
            pb.DeleteDeploymentResponse(),
        ]
    )
    assert main(["deployments", "delete", "--unused-for", "60"]) == 1
    out, err = capsys.readouterr()
    assert columns(out)[:3] == [
        ["deployment", "mode", "unused"],
        ["a", "active", "1.5 h"],
        ["b", "active", "1.5 h"],
    ]
    assert out.splitlines()[3:] == [
        "2 deployments unused for at least 60 s to delete",
        "b is deleted",
    ]
    assert err == "trimtab: a is not deleted: it is in use again\n"
    assert scripted.requests[-1] == pb.DeleteDeploymentRequest(deployment="b")


def test_what_is_to_be_deleted_has_to_be_said_in_one_way(cli: Cli, scripted: Scripted) -> None:
    delete = ["deployments", "delete"]
    for wrong in ([], ["d", "--unused-for", "5"], ["--dry-run"]):
        assert "either the names of deployments, or --unused-for" in cli.err(
            *delete, *wrong, code=2
        )
    assert "--dry-run needs --unused-for" in cli.err(*delete, "d", "--dry-run", code=2)
    for seconds, complaint in (("0", "0 is not above 0"), ("nan", "nan is not"), ("x", "invalid")):
        assert complaint in cli.err(*delete, "--unused-for", seconds, code=2)
    assert scripted.requests == []


PINNED = {"in_force": V27, "target": placement_message(OTHER)}
TOLD = {"deployment": "d", "in_force": "2.7", "target": OTHER.digest.hex()}


@pytest.mark.parametrize(
    ("command", "request_sent", "response"),
    [
        ("pin d", pb.PinRequest(deployment="d"), pb.PinResponse),
        ("roll-back d 2.7", pb.RollBackRequest(deployment="d", version=V27), pb.RollBackResponse),
        ("rollback d 7", pb.RollBackRequest(deployment="d", version=V7), pb.RollBackResponse),
    ],
)
def test_pin_and_roll_back_print_the_target(
    cli: Cli, scripted: Scripted, command: str, request_sent: Any, response: Any
) -> None:
    scripted.answer = response(**PINNED)
    out = cli.out("deployments", *command.split())
    assert out == f"d is pinned to {OTHER.digest.hex()}, and serves by 2.7\n"
    assert cli.json("deployments", *command.split()) == TOLD
    assert scripted.requests == [request_sent] * 2


def test_unpin_prints_the_placement_before(cli: Cli, scripted: Scripted) -> None:
    unpin = ["deployments", "unpin", "d"]
    scripted.answer = pb.UnpinResponse(previous_digest=OTHER.digest)
    assert cli.out(*unpin) == f"d is unpinned; it was pinned to {OTHER.digest.hex()}\n"
    scripted.answer = pb.UnpinResponse()
    assert cli.out(*unpin) == "d was not pinned\n"
    assert cli.json(*unpin) == {"deployment": "d", "previous_digest": None}


def export(scripted: Scripted) -> None:
    message = served_message(Version(2, 7)).SerializeToString()
    scripted.answer = pb.GetPlacementResponse.FromString(message)


@pytest.mark.parametrize("suffix", ["npz", "json"])
def test_an_exported_placement_can_be_imported_pinned_and_triggered(
    cli: Cli, scripted: Scripted, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"placement.{suffix}"
    export(scripted)
    out = cli.out("deployments", "export", "d", path, "--version", "2.7")
    assert out == f"d 2.7 is in {path}\n"
    [asked] = scripted.requests
    assert asked == pb.GetPlacementRequest(deployment="d", version=V27)

    scripted.answer = pb.PinResponse(**PINNED)
    to, digest = ["deployments", "import", "d", path], OTHER.digest.hex()
    may_move = "in mode active, its policy may move experts again: --pin keeps it there"
    assert cli.out(*to) == f"d goes to {digest}, and serves by 2.7\n{may_move}\n"
    assert cli.json(*to) == TOLD
    pinned = f"d is pinned to {digest}, and serves by 2.7\n"
    assert cli.out(*to, "--pin") == pinned
    assert cli.out("deployments", "pin", "d", path) == pinned
    cli.out("trigger", "d", "--placement", path)

    imported = scripted.requests[1:]
    kinds = [pb.TriggerRequest, pb.TriggerRequest, pb.PinRequest, pb.PinRequest]
    assert [type(request) for request in imported] == [*kinds, pb.TriggerRequest]
    for request in imported:
        assert array_of(request.placement.phy2log).tolist() == PLACEMENT.phy2log.tolist()


def test_an_npz_file_has_what_numpy_users_need(
    cli: Cli, scripted: Scripted, tmp_path: Path
) -> None:
    path = tmp_path / "placement.npz"
    export(scripted)
    told = cli.json("deployments", "export", "d", path)

    assert (told["version"], told["file"]) == ("2.7", str(path))
    assert told["placement"] == PLACEMENT.digest.hex()
    with np.load(path) as arrays:
        sizes = (int(arrays[name]) for name in ("num_experts", "num_gpus"))
        assert Placement.of(arrays["phy2log"], *sizes) == PLACEMENT
        assert arrays["digest"].tobytes() == PLACEMENT.digest
        assert arrays["log2phy"].tolist() == PLACEMENT.log2phy.tolist()
        assert arrays["version"].tolist() == [2, 7]
        assert [int(arrays[name]) for name in ("num_nodes", "num_groups")] == [1, 1]


def test_without_a_file_export_prints_json_that_can_be_read_again(
    cli: Cli, scripted: Scripted, tmp_path: Path
) -> None:
    export(scripted)
    out = cli.out("deployments", "export", "d")

    document = json.loads(out)
    assert (document["deployment"], document["version"]) == ("d", "2.7")
    assert document["topology"]["num_replicas"] == 6
    assert document["placement"]["digest"] == PLACEMENT.digest.hex()
    assert not scripted.requests[0].HasField("version")
    (tmp_path / "placement.json").write_text(out)
    load = tmp_path / "load.json"
    load.write_text(json.dumps(np.ones((3, 4)).tolist()))
    sizes = ["--gpus", "2", "--replicas", "6", "--local"]
    answer = cli.json("place", load, *sizes, "--current", tmp_path / "placement.json")
    assert answer["before"]["layout"] == "current"


def typed(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    """The command's standard input has this content."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))


def test_a_dash_is_standard_output_for_export(
    scripted: Scripted, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    export(scripted)
    assert main(["deployments", "export", "d"]) == 0
    document = capsysbinary.readouterr().out
    assert main(["deployments", "export", "d", "-"]) == 0
    assert capsysbinary.readouterr() == (document, b"")
    assert main(["deployments", "export", "d", "-", "--format", "json"]) == 0
    assert capsysbinary.readouterr() == (document, b"")
    assert main(["deployments", "export", "d", "-", "--format", "npy"]) == 0
    binary = capsysbinary.readouterr().out
    assert np.load(io.BytesIO(binary)).tolist() == PLACEMENT.phy2log.tolist()


@pytest.mark.parametrize("end", ["json", "npz"])
def test_a_dash_is_standard_input_where_a_placement_is_read(
    cli: Cli, scripted: Scripted, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, end: str
) -> None:
    export(scripted)
    path = tmp_path / f"placement.{end}"
    cli.out("deployments", "export", "d", path)
    scripted.requests.clear()
    flags = ["--format", "npz"] if end == "npz" else []
    for command, answer in (
        (["deployments", "pin", "d", "-"], pb.PinResponse(**PINNED)),
        (["deployments", "import", "d", "-"], pb.TriggerResponse(**PINNED)),
        (["trigger", "d", "--placement", "-"], pb.TriggerResponse(**PINNED)),
    ):
        typed(monkeypatch, path.read_bytes())
        scripted.answer = answer
        assert cli.json(*command, *flags) == TOLD
    sent = [array_of(request.placement.phy2log).tolist() for request in scripted.requests]
    assert sent == [PLACEMENT.phy2log.tolist()] * 3


def test_a_wrong_standard_input_is_named(
    cli: Cli, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed(monkeypatch, b"[[0, 1], [null, 2]]")
    err = cli.err("deployments", "pin", "d", "-")
    assert err == "trimtab: standard input: phy2log[1, 0]: null is not a number\n"
    typed(monkeypatch, b"[")
    assert "trimtab: standard input: is not JSON" in cli.err("trigger", "d", "--placement", "-")
    assert scripted.requests == []


def test_impossible_files_are_refused_before_any_call(cli: Cli, scripted: Scripted) -> None:
    err = cli.err("deployments", "export", "d", "placement.txt", code=2)
    assert "FILE placement.txt: ends in none of .npz, " in err
    err = cli.err("deployments", "export", "d", "--format", "sglang", code=2)
    assert "--format needs a FILE, or - for standard output" in err
    assert "--format needs a file" in cli.err("deployments", "pin", "d", "--format", "npz", code=2)
    assert "--format needs a file" in cli.err("trigger", "d", "--format", "npz", code=2)
    for command in ("import", "pin"):
        assert "nowhere.npz" in cli.err("deployments", command, "d", "nowhere.npz")
    assert scripted.requests == []


def test_history_is_a_table_with_the_newest_last(cli: Cli, scripted: Scripted) -> None:
    waiting = pb.Decision(
        time=Timestamp(seconds=1_795_446_246),
        step=-1,
        reason=pb.REASON_NOT_READY,
        detail="a switch is open",
        mode=pb.MODE_ACTIVE,
        times=12,
    )
    scripted.answer = pb.ListDecisionsResponse(decisions=[DECISION_MESSAGE, waiting])
    out = cli.out("history", "d", "--limit", "2")

    assert columns(out) == [
        [
            *("time", "step", "reason", "mode", "before", "after", "sigma", "noise", "tokens"),
            *("spread", "moves", "moving", "kept", "times", "detail"),
        ],
        [
            *("2026-11-23 15:04:05Z", "90", "improved", "shadow", "1.500", "1.125"),
            *("0.1250", "1.250", "4096", "1.50", "7", "250.0 ms", "75%", "1"),
        ],
        [
            *("2026-11-23 15:04:06Z", "-", "not_ready", "active"),
            *("-", "-", "-", "-", "-", "-", "0", "0.0 ms", "-", "12", "a switch is open"),
        ],
    ]
    assert scripted.requests == [pb.ListDecisionsRequest(deployment="d", limit=2)]
    # This server is too old to know of operations.
    document = cli.json("history", "d")
    assert document["operations"] == []
    first, second = document["decisions"]
    assert (first["reason"], first["moves"], first["imbalance_after"]) == ("improved", 7, 1.125)
    assert (second["imbalance_before"], second["times"]) == (None, 12)
    assert scripted.requests[-1].limit == 0


def test_decisions_are_those_of_the_client(cli: Cli, scripted: Scripted) -> None:
    scripted.answer = pb.ListDecisionsResponse(decisions=[DECISION_MESSAGE])
    header, row = columns(cli.out("decisions", "d", "--limit", "2"))

    assert (header[2], row[2]) == ("reason", "improved")
    assert scripted.requests == [pb.ListDecisionsRequest(deployment="d", limit=2)]
    (decision,) = cli.json("decisions", "d")
    assert decision["moves"] == 7


def test_trigger_pause_and_resume_print_json(cli: Cli, scripted: Scripted) -> None:
    scripted.answer = pb.TriggerResponse(**PINNED)
    assert cli.json("trigger", "d") == TOLD
    scripted.answer = pb.PauseResponse(previous_reason="before")
    paused = {"deployment": "d", "paused_reason": "now", "previous_reason": "before"}
    assert cli.json("pause", "d", "now") == paused
    scripted.answer = pb.ResumeResponse(previous_reason="now")
    resumed = {"deployment": "d", "paused_reason": None, "previous_reason": "now"}
    assert cli.json("resume", "d") == resumed
    scripted.answer = pb.ResumeResponse()
    assert cli.json("resume", "d") == {**resumed, "previous_reason": None}


def test_the_help_of_a_policys_flags_has_the_servers_defaults(cli: Cli) -> None:
    for command in ("create", "update"):
        text = " ".join(cli.out("deployments", command, "--help").split("policy:\n")[1].split())
        for field in dataclasses.fields(ServerPolicy):
            flag = f"--{field.name.replace('_', '-')} "
            _, _, about = text.partition(flag)
            if field.name == "mode":
                assert "setting balance, active unless" in about
                assert SessionConfig().balance == "active"
                continue
            found = re.search(r"\(server's default: ([^)]*)\)", about)
            assert found is not None, flag
            assert float(found[1]) == field.default, flag


def test_a_watch_that_has_lasted_long_enough_says_so(cli: Cli, scripted: Scripted) -> None:
    scripted.watches.append([Failure(grpc.StatusCode.DEADLINE_EXCEEDED)])
    err = cli.err("watch", "d", "--timeout", "1000")

    assert "The watch has lasted as long as its timeout: give a longer one, or none." in err
    assert "effort" not in err
    help_text = " ".join(cli.out("watch", "--help").split())
    assert "--timeout SECONDS end after this time" in help_text


def test_watch_prints_a_line_for_each_placement(cli: Cli, scripted: Scripted) -> None:
    away = Failure(grpc.StatusCode.UNAVAILABLE)
    other = served_message(Version(2, 8), OTHER)
    scripted.watches.extend([[served_message(Version(2, 7)), away], [other, away]])
    first, second = cli.out("watch", "d", "--count", "2").splitlines()

    assert first.split()[2:] == ["d", "2.7", PLACEMENT.digest.hex()]
    changed = str(np.count_nonzero(PLACEMENT.phy2log != OTHER.phy2log))
    assert second.split()[2:] == ["d", "2.8", OTHER.digest.hex(), changed, "slots", "changed"]


def test_watch_prints_a_line_of_json_for_each_placement(cli: Cli, scripted: Scripted) -> None:
    small = Placement.untouched(1, 4, 6, 2)
    scripted.watches.append([served_message(Version(2, 7)), served_message(Version(2, 8), small)])
    out = cli.out("watch", "d", "--count", "2", "--json")

    first, second = (json.loads(line) for line in out.splitlines())
    assert first.pop("time").endswith("+00:00")
    digest = PLACEMENT.digest.hex()
    assert first == {"deployment": "d", "version": "2.7", "digest": digest, "changed_slots": None}
    assert (second["version"], second["changed_slots"]) == ("2.8", None)


def test_watch_ends_with_the_error_that_ends_it(cli: Cli, scripted: Scripted) -> None:
    scripted.watches.append([Failure(grpc.StatusCode.NOT_FOUND, "'d' is no more")])
    assert cli.err("watch", "d") == "trimtab: 'd' is no more\n"
    assert "0 is not at least 1" in cli.err("watch", "d", "--count", "0", code=2)


@pytest.mark.process
def test_a_reader_that_has_had_enough_is_no_error(scripted: Scripted) -> None:
    export(scripted)
    code = "import sys; from trimtab_tools.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "deployments", "export", "d", "-", "--format", "csv"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=60) == 1


@pytest.mark.process
def test_an_interrupt_ends_a_watch_silently(scripted: Scripted) -> None:
    scripted.watches.append([served_message(Version(2, 7)), "hold"])
    # As in a terminal, since processes in the background of a shell ignore the signal.
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from trimtab_tools.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "watch", "d"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert b"d 2.7" in process.stdout.readline()
        process.send_signal(2)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, b"", b"")
    assert scripted.watch_over.acquire(timeout=20)


@pytest.mark.parametrize(
    "command",
    [
        *(f"deployments {each} d" for each in ("get", "forget-load", "unpin", "export")),
        *("deployments pin d", "deployments roll-back d 3", "deployments update d --mode off"),
        *("history d", "decisions d", "trigger d", "resume d"),
    ],
)
def test_a_refusal_is_a_failure_with_the_servers_message(
    cli: Cli, scripted: Scripted, command: str
) -> None:
    scripted.failures.append(Failure(grpc.StatusCode.NOT_FOUND, "there is no 'd'"))
    assert cli.err(*command.split()) == "trimtab: there is no 'd'\n"
