"""vLLM's own load balancer with the plug-in, on four ranks, whatever the server does."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engines.groups import Group, group
from tests.engines.vllm_group import EXPERTS, INTERVAL, LAYERS, RANKS, SLOTS
from tests.servers import ServerProcess, server_process
from trimtab_client import Client, DeploymentSpec, Mode, Policy, SwitchedBy, Topology

pytestmark = [pytest.mark.process, pytest.mark.slow]

SYNC, ASYNC = {"use_async": False, "models": 1}, {"use_async": True, "models": 1}
REBALANCES = 200


@pytest.fixture(scope="module")
def server(starts_processes: None) -> Iterator[ServerProcess]:
    with server_process("--balance", "active") as running:
        yield running


@pytest.fixture
def name(request: pytest.FixtureRequest, server: ServerProcess) -> str:
    """A deployment whose policy follows each change of the load at once."""
    name: str = request.node.name
    spec = DeploymentSpec(
        name, LAYERS, EXPERTS, Topology(SLOTS, RANKS), switched_by=SwitchedBy.ENGINE
    )
    with Client(server.address) as client:
        client.create_deployment(spec, Policy(mode=Mode.ACTIVE, window_steps=INTERVAL))
    return name


@pytest.mark.parametrize("options", [SYNC, ASYNC], ids=["sync", "async"])
def test_hundreds_of_rebalances_leave_no_slot_wrong(options, name, server, tmp_path: Path):
    with group("vllm", tmp_path, options, TARGET=server.address, DEPLOYMENT=name) as ranks:
        switched = 0
        while switched < REBALANCES:
            seen = ranks.run(20 * INTERVAL)
            assert seen["wrong"] == 0
            switched += moved(seen, options)
        with Client(server.address) as client:
            deployment = client.get_deployment(name)
            served = client.get_placement(name).placement
        assert deployment.spec.switched_by is SwitchedBy.ENGINE
        # The last switch may not have been reported yet.
        assert deployment.status.in_force.generation >= switched - 1
        assert deployment.spec.model == "model0"
        assert served.phy2log.shape == (LAYERS, SLOTS)


def moved(seen: dict[str, Any], options: dict[str, Any]) -> int:
    """How many rebalances moved an expert. In async mode each layer is a step of its own."""
    return seen["switched"] // (LAYERS if options["use_async"] else 1)


def test_a_slot_with_wrong_weights_is_found(name, server, tmp_path: Path):
    with group("vllm", tmp_path, SYNC, TARGET=server.address, DEPLOYMENT=name) as ranks:
        assert ranks.run(1)["wrong"] == 0
        assert ranks.run(1, plant=1)["wrong"] > 0


@pytest.mark.parametrize("options", [SYNC, ASYNC], ids=["sync", "async"])
def test_two_models_of_an_engine_are_two_deployments(options, name, server, tmp_path: Path):
    both = {**options, "models": 2}
    with group("vllm", tmp_path, both, TARGET=server.address, DEPLOYMENT=name) as ranks:
        seen = ranks.run(10 * INTERVAL)
        assert seen["wrong"] == 0
        first, second = seen["maps"]
        assert first != second
        with Client(server.address) as client:
            models = [client.get_deployment(each).spec.model for each in (name, f"{name}/model1")]
        assert models == ["model0", "model1"]


def test_a_rank_that_is_late_changes_nothing(name, server, tmp_path: Path):
    with group("vllm", tmp_path, SYNC, TARGET=server.address, DEPLOYMENT=name) as ranks:
        seen = ranks.run(6 * INTERVAL, late=2)
        assert (seen["wrong"], seen["switched"] > 0) == (0, True)


def test_without_tokens_nothing_moves(name, server, tmp_path: Path):
    with group("vllm", tmp_path, SYNC, TARGET=server.address, DEPLOYMENT=name) as ranks:
        seen = ranks.run(4 * INTERVAL, idle=True)
        assert (seen["rebalances"], seen["switched"]) == (4, 0)
        with Client(server.address) as client:
            assert set(client.get_deployment(name).status.decisions) <= {"no_load"}


@pytest.mark.parametrize("options", [SYNC, ASYNC], ids=["sync", "async"])
def test_without_a_server_maps_stay_and_with_it_they_follow_again(options, tmp_path: Path):
    with server_process("--balance", "active") as first:
        settings = {"TARGET": first.address, "DEPLOYMENT": "m", "TIMEOUT": "0.5"}
        with group("vllm", tmp_path, options, **settings) as ranks:
            until_switched(ranks)
            first.process.kill()
            first.process.wait()
            keeps_its_maps(ranks)
            with server_process("--balance", "active", "--listen", first.address):
                until_switched(ranks)


def test_a_server_that_does_not_answer_holds_nobody_up(tmp_path: Path):
    with server_process("--balance", "active") as slow:
        settings = {"TARGET": slow.address, "DEPLOYMENT": "m", "TIMEOUT": "0.5"}
        with group("vllm", tmp_path, SYNC, **settings) as ranks:
            until_switched(ranks)
            slow.process.send_signal(signal.SIGSTOP)
            keeps_its_maps(ranks)
            slow.process.send_signal(signal.SIGCONT)
            until_switched(ranks)
            assert "not answered within 0.5 s" in ranks.log or "deadline" in ranks.log.lower()


def test_a_server_that_refuses_is_named_once_and_nothing_moves(name, server, tmp_path: Path):
    other = DeploymentSpec("other", LAYERS, EXPERTS, Topology(SLOTS, RANKS))
    with Client(server.address) as client:
        client.create_deployment(other)
    with group("vllm", tmp_path, SYNC, TARGET=server.address, DEPLOYMENT="other") as ranks:
        keeps_its_maps(ranks)
        assert ranks.log.count("switched_by: engine is not workers") == 1


def test_an_engine_that_observes_follows_its_own_policy(name, server, tmp_path: Path):
    settings = {"TARGET": server.address, "DEPLOYMENT": name, "MODE": "observe"}
    with group("vllm", tmp_path, SYNC, **settings) as ranks:
        seen = ranks.run(8 * INTERVAL)
        with group("vllm", tmp_path / "..", SYNC) as alone:
            assert alone.run(8 * INTERVAL)["maps"] == seen["maps"]
        assert seen["switched"] > 0
        with Client(server.address) as client:
            status = client.get_deployment(name).status
            assert {each.mode for each in client.decisions(name)} == {Mode.SHADOW}
        assert status.in_force.epoch > 1


def test_a_wrong_setting_leaves_the_engine_as_it_was(tmp_path: Path):
    with group("vllm", tmp_path, SYNC, TARGET="127.0.0.1:1", MODE="lead", DEPLOYMENT="m") as ranks:
        assert ranks.run(2 * INTERVAL)["switched"] > 0
        assert "trimtab-vllm is not active: TRIMTAB_MODE: 'lead' is not one of" in ranks.log


def until_switched(ranks: Group) -> None:
    while not (seen := ranks.run(INTERVAL, pause=0.01))["switched"]:
        assert seen["wrong"] == 0


def keeps_its_maps(ranks: Group) -> None:
    """A switch that was agreed on before may still end."""
    ranks.run(2 * INTERVAL, pause=0.01)
    seen = ranks.run(4 * INTERVAL, pause=0.01)
    assert (seen["wrong"], seen["switched"], seen["rebalances"] > 0) == (0, 0, True)
