"""`trimtab trigger`, `pause` and `resume`, against a real server with a worker."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.client.deployed import FIRST, SECOND, Worker
from tests.servers import ServerProcess
from tests.tools.cli.conftest import Cli


@pytest.fixture(autouse=True)
def _server(often: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_SERVER", often.address)


def test_a_deployment_is_switched_to_the_placement_of_a_file(
    cli: Cli, worker: Worker, tmp_path: Path
) -> None:
    path = tmp_path / "placement.json"
    path.write_text(json.dumps({"placement": {"phy2log": SECOND.phy2log.tolist()}}))
    out = cli.out("trigger", worker.deployment, "--placement", path)

    assert out == f"{worker.deployment} serves by 1.0, target {SECOND.digest.hex()}\n"
    worker.flip()
    assert worker.session.placement == SECOND


def test_an_impossible_trigger_is_a_failure(cli: Cli, worker: Worker, tmp_path: Path) -> None:
    name = worker.deployment
    assert "no worker has reported any load yet" in cli.err("trigger", name)
    assert "nowhere.npz" in cli.err("trigger", name, "--placement", "nowhere.npz")
    (tmp_path / "small.json").write_text("[[0, 1, 2, 3]]")
    err = cli.err("trigger", name, "--placement", tmp_path / "small.json")
    assert "placement.phy2log.shape" in err


def test_pause_and_resume_print_the_earlier_reason(
    cli: Cli, worker: Worker, tmp_path: Path
) -> None:
    name, path = worker.deployment, tmp_path / "placement.json"
    path.write_text(json.dumps(FIRST.phy2log.tolist()))
    trigger = ["trigger", name, "--placement", path]

    assert cli.out("pause", name, "maintenance") == f"{name} is paused\n"
    out = cli.out("pause", name, "more of it")
    assert out == f"{name} is paused, and was before: maintenance\n"
    assert cli.err(*trigger) == "trimtab: the deployment is paused: more of it\n"

    out = cli.out("resume", name)
    assert out == f"{name} is resumed; it was paused: more of it\n"
    assert cli.out("resume", name) == f"{name} was not paused\n"
    cli.out(*trigger)


@pytest.mark.parametrize(
    "command", [["trigger", "nobody"], ["pause", "nobody", "maintenance"], ["resume", "nobody"]]
)
def test_an_unknown_deployment_is_a_failure(cli: Cli, command: list[str]) -> None:
    assert cli.err(*command) == "trimtab: there is no deployment 'nobody'\n"
    assert "Check the address" in cli.err(*command, "--server", "unix:/nowhere")


def test_a_pause_without_a_reason_is_a_failure(cli: Cli, worker: Worker) -> None:
    assert "reason: '' is blank" in cli.err("pause", worker.deployment, "")
    assert cli.out("resume", worker.deployment).endswith("was not paused\n")
