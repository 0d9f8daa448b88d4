"""What the plug-ins of engines share: settings, the process that asks, and one answer for all."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import numpy as np
import pytest

from tests.servers import ServerProcess
from trimtab_client import (
    Client,
    DeploymentSpec,
    InvalidArgumentError,
    Mode,
    Placement,
    Policy,
    SwitchedBy,
    TlsOptions,
    Topology,
)
from trimtab_client.plugin import (
    Leader,
    ModelLoad,
    PluginSettings,
    activate,
    agreed,
    changed_signatures,
)

NEEDED = {"TRIMTAB_TARGET": "host:1", "TRIMTAB_DEPLOYMENT": "prod"}
TOPOLOGY = Topology(num_replicas=12, num_gpus=4)
FIRST = Placement.untouched(3, 8, 12, 4)
OTHER = Placement.of(FIRST.phy2log[:, ::-1], 8, 4)
COUNTS = np.random.default_rng(0).gamma(0.5, 1000.0, (3, 8)).astype(np.int64)
LOAD = ModelLoad("", "tiny", TOPOLOGY, 100, COUNTS, FIRST.phy2log, 100, COUNTS.shape[1])

logger = logging.getLogger("engine")


def test_without_a_target_there_are_no_settings() -> None:
    assert PluginSettings.from_environ({"TRIMTAB_MODE": "nonsense"}) is None
    assert PluginSettings.from_environ({**NEEDED, "TRIMTAB_TARGET": ""}) is None


def test_settings_are_read_from_the_environment() -> None:
    assert PluginSettings.from_environ(NEEDED) == PluginSettings("host:1", "prod", False, 2.0, None)
    more = {"TRIMTAB_MODE": "observe", "TRIMTAB_TIMEOUT": "0.5", "TRIMTAB_TLS_CA": "ca.pem"}
    settings = PluginSettings.from_environ({**NEEDED, **more})
    assert settings == PluginSettings("host:1", "prod", True, 0.5, TlsOptions(ca="ca.pem"))


@pytest.mark.parametrize(
    ("variable", "value", "complaint"),
    [
        ("TRIMTAB_DEPLOYMENT", "", "TRIMTAB_DEPLOYMENT: is not set"),
        ("TRIMTAB_MODE", "lead", "TRIMTAB_MODE: 'lead' is not one of"),
        ("TRIMTAB_TIMEOUT", "soon", "TRIMTAB_TIMEOUT: 'soon' is not a number of seconds above 0"),
        ("TRIMTAB_TIMEOUT", "0", "TRIMTAB_TIMEOUT: '0' is not"),
        ("TRIMTAB_TIMEOUT", "inf", "TRIMTAB_TIMEOUT: 'inf' is not"),
        ("TRIMTAB_TLS_KEY", "key.pem", "cert and key belong together"),
    ],
)
def test_a_wrong_setting_is_named(variable: str, value: str, complaint: str) -> None:
    with pytest.raises(InvalidArgumentError, match=complaint):
        PluginSettings.from_environ({**NEEDED, variable: value})


# Active or not.


class Engine:
    """Hooks of an engine that has these unknown parts."""

    def __init__(self, unknown: str = "") -> None:
        self.unknown = unknown
        self.leader: Leader | None = None

    def unknown_parts(self) -> str:
        return self.unknown

    def install(self, leader: Leader) -> None:
        self.leader = leader


@pytest.mark.parametrize(
    ("environ", "unknown", "said"),
    [
        ({}, "", "trimtab-x is not active: TRIMTAB_TARGET is not set"),
        ({**NEEDED, "TRIMTAB_MODE": "lead"}, "", "trimtab-x is not active: TRIMTAB_MODE: 'lead'"),
        (NEEDED, "step(a)", "trimtab-x is not active: this engine is not known: step(a)"),
    ],
)
def test_an_engine_is_left_as_it_was(environ, unknown, said, monkeypatch, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    engine = Engine(unknown)
    for name in NEEDED:
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    activate("trimtab-x", logger, lambda: engine)
    assert engine.leader is None
    assert [record.message for record in caplog.records if said in record.message]
    assert len(caplog.records) == 1


def test_an_engine_that_is_known_gets_a_leader(monkeypatch, caplog) -> None:
    caplog.set_level(logging.INFO)
    engine = Engine()
    for name, value in {**NEEDED, "TRIMTAB_MODE": "observe"}.items():
        monkeypatch.setenv(name, value)
    activate("trimtab-x", logger, lambda: engine)
    assert engine.leader is not None
    assert engine.leader.observes
    assert "trimtab-x: EPLB reports to host:1 as prod" in caplog.text


def test_parameters_that_changed_are_named() -> None:
    def step(state: object, more: object) -> None:
        """A function of an engine."""

    assert changed_signatures({"step": (step, ("state", "more"))}) == []
    [found] = changed_signatures({"step": (step, ("state",))})
    assert found == "step(state, more) is not step(state)"


# One answer for all ranks.


def on_all_ranks(target: Placement | None) -> list[np.ndarray]:
    """What four ranks agree on, where the first one is the leader."""
    told: list[np.ndarray] = []
    ready = threading.Barrier(4)

    def broadcast_of(rank: int) -> Callable[[np.ndarray], None]:
        def broadcast(message: np.ndarray) -> None:
            if rank == 0:
                told.append(message.copy())
            ready.wait(60)
            message[:] = told[0]

        return broadcast

    answers: list[np.ndarray] = [np.empty(0)] * 4

    def run(rank: int) -> None:
        own = target if rank == 0 else None
        answers[rank] = agreed(own, FIRST.phy2log, broadcast_of(rank))

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


@pytest.mark.parametrize("target", [None, OTHER], ids=["keep", "switch"])
def test_all_ranks_get_the_leaders_answer(target: Placement | None) -> None:
    wanted = (target or FIRST).phy2log.tolist()
    for answer in on_all_ranks(target):
        assert (answer.dtype, answer.tolist()) == (np.int64, wanted)


def test_a_rank_that_cannot_hear_the_others_keeps_its_placement() -> None:
    def broadcast(message: np.ndarray) -> None:
        message[:] = 1
        raise RuntimeError("a peer has died")

    assert agreed(OTHER, FIRST.phy2log, broadcast).tolist() == FIRST.phy2log.tolist()


# The process that asks.


def leader_of(server: ServerProcess, name: str, **settings: object) -> Leader:
    spec = DeploymentSpec(name, 3, 8, TOPOLOGY, switched_by=SwitchedBy.ENGINE)
    with Client(server.address) as client:
        client.create_deployment(spec, Policy(mode=Mode.ACTIVE))
    return Leader(PluginSettings(server.address, name, **settings), logger)


def test_a_leader_brings_a_placement_from_the_second_question_on(
    often: ServerProcess, caplog: pytest.LogCaptureFixture
) -> None:
    """The first one cannot tell how long a step takes."""
    caplog.set_level(logging.INFO)
    leader = leader_of(often, "leader")
    leader.warm()
    assert leader.ask(LOAD) is None
    target = leader.ask(LOAD)
    assert target is not None
    assert target.balance(COUNTS).imbalance.mean() < FIRST.balance(COUNTS).imbalance.mean()
    assert "leader keeps its placement: no_load" in caplog.text
    assert "leader switches to 1.1, " in caplog.text


def test_a_second_model_is_a_deployment_of_its_own(often: ServerProcess) -> None:
    leader = leader_of(often, "target")
    leader.ask(LOAD)
    leader.ask(LOAD._replace(key="model1", model="drafter"))
    with Client(often.address) as client:
        models = [client.get_deployment(each).spec.model for each in ("target", "target/model1")]
    assert models == ["tiny", "drafter"]


def test_an_observing_leader_reports_in_the_background(often: ServerProcess) -> None:
    leader = leader_of(often, "observer", observes=True)
    leader.tell(LOAD)
    leader.tell(LOAD)
    with Client(often.address) as client:
        while not (decisions := [each for each in client.decisions("observer") if each.moves]):
            pass
    assert {each.mode for each in decisions} == {Mode.SHADOW}


def test_a_failure_that_lasts_is_told_once_and_costs_no_answer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    leader = Leader(PluginSettings("127.0.0.1:1", "prod", timeout=0.2), logger)
    assert [leader.ask(LOAD) for _ in range(3)] == [None] * 3
    assert caplog.text.count("prod keeps its placement") <= 2  # two ways to say the same


def test_a_load_that_cannot_be_is_no_reason_to_raise(caplog: pytest.LogCaptureFixture) -> None:
    leader = Leader(PluginSettings("127.0.0.1:1", "prod"), logger)
    assert leader.ask(LOAD._replace(phy2log_LR=np.full((3, 12), 99))) is None
    assert leader.ask(LOAD._replace(topology=None)) is None  # type: ignore[arg-type]
    assert caplog.text.count("prod keeps its placement") == 2
