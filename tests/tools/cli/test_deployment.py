"""`trimtab trigger`, `pause` and `resume`, against a real server with a worker."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.client.deployed import FIRST, SECOND, Worker
from tests.servers import ServerProcess
from tests.tools.cli.test_cli import Capture, fail, succeed


@pytest.fixture
def at(often: ServerProcess) -> list[str]:
    return ["--server", often.address]


def test_a_deployment_is_switched_to_the_placement_of_a_file(
    capsys: Capture, at: list[str], worker: Worker, tmp_path: Path
) -> None:
    path = tmp_path / "placement.json"
    path.write_text(json.dumps({"placement": {"phy2log": SECOND.phy2log.tolist()}}))
    out = succeed(capsys, "trigger", worker.deployment, "--placement", str(path), *at)

    assert out == f"{worker.deployment} serves by 1.0, target {SECOND.digest.hex()}\n"
    worker.flip()
    assert worker.session.placement == SECOND


def test_an_impossible_trigger_is_a_failure(
    capsys: Capture, at: list[str], worker: Worker, tmp_path: Path
) -> None:
    name = worker.deployment
    assert "no worker has reported any load yet" in fail(capsys, "trigger", name, *at)
    assert "nowhere.npz" in fail(capsys, "trigger", name, "--placement", "nowhere.npz", *at)
    (tmp_path / "small.json").write_text("[[0, 1, 2, 3]]")
    err = fail(capsys, "trigger", name, "--placement", str(tmp_path / "small.json"), *at)
    assert "placement.phy2log.shape" in err


def test_pause_and_resume_print_the_earlier_reason(
    capsys: Capture, at: list[str], worker: Worker, tmp_path: Path
) -> None:
    name, path = worker.deployment, tmp_path / "placement.json"
    path.write_text(json.dumps(FIRST.phy2log.tolist()))
    trigger = ["trigger", name, "--placement", str(path), *at]

    assert succeed(capsys, "pause", name, "maintenance", *at) == f"{name} is paused\n"
    out = succeed(capsys, "pause", name, "more of it", *at)
    assert out == f"{name} is paused, and was before: maintenance\n"
    assert fail(capsys, *trigger) == "trimtab: the deployment is paused: more of it\n"

    out = succeed(capsys, "resume", name, *at)
    assert out == f"{name} is resumed; it was paused: more of it\n"
    assert succeed(capsys, "resume", name, *at) == f"{name} was not paused\n"
    succeed(capsys, *trigger)


@pytest.mark.parametrize(
    "command", [["trigger", "nobody"], ["pause", "nobody", "maintenance"], ["resume", "nobody"]]
)
def test_an_unknown_deployment_is_a_failure(
    capsys: Capture, at: list[str], command: list[str]
) -> None:
    said = fail(capsys, *command, *at)
    assert said == "trimtab: there is no deployment 'nobody'\n"
    assert "Check the address" in fail(capsys, *command, "--server", "unix:/nowhere")


def test_a_pause_without_a_reason_is_a_failure(
    capsys: Capture, at: list[str], worker: Worker
) -> None:
    assert "reason: '' is blank" in fail(capsys, "pause", worker.deployment, "", *at)
    assert "required: REASON" in fail(capsys, "pause", worker.deployment, *at, code=2)
    assert succeed(capsys, "resume", worker.deployment, *at).endswith("was not paused\n")


@pytest.mark.parametrize("command", ["trigger", "pause", "resume"])
def test_a_command_needs_a_deployment(capsys: Capture, command: str) -> None:
    assert "required: DEPLOYMENT" in fail(capsys, command, code=2)
