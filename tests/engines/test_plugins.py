"""The engines' own load balancers with the plug-ins, on four ranks, whatever the server does."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.engines import sglang_group, vllm_group
from tests.engines.groups import Group
from tests.servers import ServerProcess, server_process
from trimtab_client import Client, DeploymentSpec, Mode, Policy, SwitchedBy, Topology
from trimtab_tools.simulate.windows import imbalance_of

pytestmark = [pytest.mark.process, pytest.mark.slow]

REBALANCES = 200
INTERVAL = vllm_group.INTERVAL
assert INTERVAL == sglang_group.INTERVAL


class Kind(NamedTuple):
    """An engine, and how it switches."""

    engine: str
    options: dict[str, Any]

    @property
    def shape(self) -> tuple[int, int, Topology]:
        """Layers, experts, and the rest."""
        at = vllm_group if self.engine == "vllm" else sglang_group
        return at.LAYERS, at.EXPERTS, Topology(at.SLOTS, at.RANKS)


SYNC = Kind("vllm", {"use_async": False, "models": 1})
ASYNC = Kind("vllm", {"use_async": True, "models": 1})
WHOLE = Kind("sglang", {"chunk": None})
CHUNKS = Kind("sglang", {"chunk": 2})
NAMED = {"vLLM": SYNC, "vLLM, async": ASYNC, "SGLang": WHOLE, "SGLang, chunks": CHUNKS}
EACH_KIND = pytest.mark.parametrize("kind", NAMED.values(), ids=NAMED)
EACH_ENGINE = pytest.mark.parametrize("kind", [SYNC, WHOLE], ids=["vLLM", "SGLang"])


@pytest.fixture(scope="module")
def server(starts_processes: None) -> Iterator[ServerProcess]:
    with server_process() as running:
        yield running


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    name: str = request.node.name
    return name


def create(address: str, name: str, kind: Kind) -> None:
    """Create a deployment whose policy follows each change of the load at once."""
    layers, experts, topology = kind.shape
    spec = DeploymentSpec(name, layers, experts, topology, switched_by=SwitchedBy.ENGINE)
    policy = Policy(mode=Mode.ACTIVE, window_steps=INTERVAL, every_steps=INTERVAL)
    with Client(address) as client:
        client.create_deployment(spec, policy)


@EACH_KIND
def test_hundreds_of_rebalances_leave_no_slot_wrong(kind, name, server, hosts):
    create(server.address, name, kind)
    ranks = hosts.group(*kind, TARGET=server.address, DEPLOYMENT=name)
    moved = 0
    while moved < REBALANCES:
        seen = ranks.run(40 * INTERVAL)
        assert seen["wrong"] == 0
        moved += seen["moved"]
    with Client(server.address) as client:
        status = client.get_deployment(name).status
    # What the last switch led to is told by the call after it.
    assert status.in_force.generation >= moved - 1
    assert (status.in_force.epoch, status.paused_reason) == (1, None)


@EACH_ENGINE
def test_a_slot_with_wrong_weights_is_found(kind, name, server, hosts):
    ranks = hosts.group(*kind, TARGET=server.address, DEPLOYMENT=name)
    assert ranks.run(1)["wrong"] == 0
    assert ranks.run(1, plant=1)["wrong"] > 0


@pytest.mark.parametrize("kind", [SYNC, ASYNC], ids=["sync", "async"])
def test_two_models_of_an_engine_are_two_deployments(kind, name, server, hosts):
    names = name, f"{name}/model1"
    for each in names:
        create(server.address, each, kind)
    both = kind._replace(options={**kind.options, "models": 2})
    ranks = hosts.group(*both, TARGET=server.address, DEPLOYMENT=name)
    seen = ranks.run(20 * INTERVAL)
    first, second = seen["maps"]
    assert first != second
    with Client(server.address) as client:
        statuses = [client.get_deployment(each) for each in names]
    assert [each.spec.model for each in statuses] == ["model0", "model1"]
    assert all(each.status.in_force.generation > 0 for each in statuses)


@EACH_ENGINE
def test_a_rank_that_is_late_changes_nothing(kind, name, server, hosts):
    create(server.address, name, kind)
    ranks = hosts.group(*kind, TARGET=server.address, DEPLOYMENT=name)
    seen = ranks.run(6 * INTERVAL, late=2)
    assert (seen["wrong"], seen["moved"] > 0) == (0, True)


@EACH_ENGINE
def test_without_tokens_nothing_moves(kind, name, server, hosts):
    create(server.address, name, kind)
    ranks = hosts.group(*kind, TARGET=server.address, DEPLOYMENT=name)
    seen = ranks.run(4 * INTERVAL, idle=True)
    assert (seen["rebalances"] > 0, seen["moved"]) == (True, 0)
    with Client(server.address) as client:
        assert set(client.get_deployment(name).status.decisions) == {"no_load"}


@EACH_KIND
def test_without_a_server_maps_stay_and_with_it_they_follow_again(kind, hosts):
    with server_process() as first:
        create(first.address, "m", kind)
        settings = {"TARGET": first.address, "DEPLOYMENT": "m", "TIMEOUT": "1"}
        ranks = hosts.group(*kind, **settings)
        until_moved(ranks)
        first.process.kill()
        first.process.wait()
        keeps_its_maps(ranks)
        with server_process("--listen", first.address) as second:
            create(second.address, "m", kind)
            until_moved(ranks)


@EACH_ENGINE
def test_a_server_that_does_not_answer_holds_nobody_up(kind, hosts):
    with server_process() as slow:
        create(slow.address, "m", kind)
        ranks = hosts.group(*kind, TARGET=slow.address, DEPLOYMENT="m", TIMEOUT="1")
        until_moved(ranks)
        slow.process.send_signal(signal.SIGSTOP)
        keeps_its_maps(ranks)
        assert "keeps its placement" in ranks.log
        slow.process.send_signal(signal.SIGCONT)
        until_moved(ranks)


@EACH_ENGINE
def test_a_server_that_refuses_is_heard_once_and_nothing_moves(kind, name, server, hosts):
    layers, experts, topology = kind.shape
    with Client(server.address) as client:
        client.create_deployment(DeploymentSpec(name, layers, experts, topology))
    ranks = hosts.group(*kind, TARGET=server.address, DEPLOYMENT=name)
    keeps_its_maps(ranks)
    assert ranks.log.count("switched_by: engine is not workers") == 1


@EACH_ENGINE
def test_an_engine_that_observes_follows_its_own_policy(kind, name, server, hosts):
    create(server.address, name, kind)
    observing = {"TARGET": server.address, "DEPLOYMENT": name, "MODE": "observe"}
    maps = []
    for settings in ({}, observing):
        ranks = hosts.group(*kind, **settings)
        maps.append(ranks.run(8 * INTERVAL)["maps"])
    assert maps[0] == maps[1]
    with Client(server.address) as client:
        assert {each.mode for each in client.decisions(name)} == {Mode.SHADOW}
        assert client.get_deployment(name).status.in_force.epoch > 1


@EACH_ENGINE
def test_where_a_group_grows_or_shrinks_the_engines_own_policy_decides(kind, name, server, hosts):
    create(server.address, name, kind)
    ranks = hosts.group(*kind, TARGET=server.address, DEPLOYMENT=name)
    assert ranks.resize() == [True] * vllm_group.RANKS
    assert ranks.run(3 * INTERVAL)["wrong"] == 0


@EACH_ENGINE
def test_a_wrong_setting_leaves_the_engine_as_it_was(kind, hosts):
    settings = {"TARGET": "127.0.0.1:1", "DEPLOYMENT": "m", "MODE": "lead"}
    ranks = hosts.group(*kind, **settings)
    assert ranks.run(2 * INTERVAL)["moved"] > 0
    assert "is not active: TRIMTAB_MODE: 'lead' is not one of" in ranks.log


def until_moved(ranks: Group) -> None:
    while not (seen := ranks.run(INTERVAL))["moved"]:
        assert seen["wrong"] == 0


def keeps_its_maps(ranks: Group) -> None:
    """A switch that was agreed on before may still end."""
    ranks.run(2 * INTERVAL)
    seen = ranks.run(4 * INTERVAL)
    assert (seen["wrong"], seen["moved"], seen["rebalances"] > 0) == (0, 0, True)


def test_sglang_says_how_it_divides_tokens_over_replicas(hosts, name, server):
    for dispatch, split in (("dynamic", "even"), ("lp", "best")):
        create(server.address, f"{name}/{dispatch}", WHOLE)
        options = {"chunk": None, "dispatch": dispatch}
        where = {"TARGET": server.address, "DEPLOYMENT": f"{name}/{dispatch}"}
        ranks = hosts.group("sglang", options, **where)
        assert ranks.split() == [split] * 4
        seen = ranks.run(6 * INTERVAL)
        assert (seen["wrong"], seen["moved"] > 0) == (0, True)


def test_near_replicas_that_sglang_prefers_are_judged_by_what_they_process(hosts, name, server):
    """What the server predicts for the placement in force is what the GPUs have processed."""
    create(server.address, name, WHOLE)
    where = {"TARGET": server.address, "DEPLOYMENT": name}
    ranks = hosts.group("sglang", {"chunk": None, "dispatch": "static"}, **where)
    moved = 0
    ranks.run(1)  # SGLang rebalances in the first pass after an interval
    with Client(server.address) as client:
        for _ in range(6):
            seen = ranks.run(INTERVAL)
            assert seen["wrong"] == 0
            moved += seen["moved"]
            loads_LG = seen["processed"].reshape(sglang_group.LAYERS, sglang_group.RANKS, -1).sum(2)
            ratio_L = imbalance_of(loads_LG[sglang_group.DENSE :])
            predicted = client.get_deployment(name).status.balance.predicted
            assert predicted.mean == pytest.approx(ratio_L.mean())
    assert moved > 0
