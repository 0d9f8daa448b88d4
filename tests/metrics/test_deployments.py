"""Metrics of deployments: their values, and when their series begin and end."""

from __future__ import annotations

import asyncio
import re
import urllib.request
from dataclasses import replace

import grpc
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from tests.rpc.peers import about, group, hello, joined, report, trigger, until
from tests.rpc.placements import AFTER
from tests.servers import make_config
from trimtab.v1alpha1 import session_service_pb2 as pb
from trimtab.v1alpha1 import switch_pb2
from trimtab_protocol.version import Version
from trimtab_server.app import App
from trimtab_server.domain.balance import OverLayers
from trimtab_server.engine.observer import RolloutSummary
from trimtab_server.engine.status import BalanceStatus, Status, WorkerStatus
from trimtab_server.metrics.deployments import DeploymentMetrics
from trimtab_server.policy.decide import Candidate, Certainty, Decision, Reason
from trimtab_server.policy.trust import Judgement
from trimtab_server.rollout.effects import Cause

IDLE = RolloutSummary(1, "idle", None, None)
OFFERED = RolloutSummary(1, "offered", Version(1, 1), None)

CERTAINTY = Certainty(4096.0, 1.5, 1.25, 0.125, 2.0)
JUDGED = Judgement(26, 64, 0.5, 0.375)
CANDIDATE = Candidate(before=1.5, after=1.2, moves=3, seconds=0.1)
STATUS = Status(
    in_force=Version(2, 7),
    digest=b"d" * 32,
    in_force_seconds=40.0,
    phase="offered",
    switching_to=Version(2, 8),
    not_ready="a switch is open",
    mode="shadow",
    paused=None,
    pinned=None,
    workers=(
        WorkerStatus("a", (0,), connected=True, incarnation=1, last_step=9, report_age=0.5),
        WorkerStatus("b", (1,), connected=False, incarnation=1, last_step=5, report_age=3.0),
    ),
    serving={"in_force": 1, "next": 0, "other": 0},
    step=9,
    known_seconds=50.0,
    balance=BalanceStatus(
        predicted=OverLayers(1.5, 1.25, 1.3, 4), shadow=OverLayers(1.1, 1.05, 1.07, 4)
    ),
    shadow_moves=4,
    last_decision=None,
    decisions={},
    past=(),
)


PHASES = ("idle", "offered", "committed", "aborting")


class Clock:
    """A clock that the test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def metrics(registry: CollectorRegistry, clock: Clock) -> DeploymentMetrics:
    """Metrics that know the deployment "d"."""
    made = DeploymentMetrics(registry, clock)
    made.rollout_changed("d", IDLE)
    return made


def lines(registry: CollectorRegistry) -> list[str]:
    """The exposed samples of deployments."""
    exposed = generate_latest(registry).decode().splitlines()
    return [line for line in exposed if line[0] != "#" and 'deployment="' in line]


def test_the_phase_age_is_that_of_the_open_switch(
    registry: CollectorRegistry, metrics: DeploymentMetrics, clock: Clock
) -> None:
    ages = []
    for summary in (
        IDLE,
        OFFERED,
        OFFERED._replace(sessions=2),
        OFFERED._replace(phase="committed"),
        # Another switch in the same phase is as young as it is.
        OFFERED._replace(phase="committed", version=Version(1, 2)),
        IDLE,
    ):
        metrics.rollout_changed("d", summary)
        clock.now += 10
        name = "trimtab_switch_phase_age_seconds"
        ages.append(registry.get_sample_value(name, {"deployment": "d"}))
    assert ages == [0, 10, 20, 10, 10, 0]


def test_exactly_one_phase_is_1(registry: CollectorRegistry, metrics: DeploymentMetrics) -> None:
    for phase in ("idle", "offered", "aborting", "committed"):
        metrics.rollout_changed("d", OFFERED._replace(phase=phase))
        shown = [line for line in lines(registry) if line.startswith("trimtab_switch_phase{")]
        assert len(shown) == 4
        assert [line for line in shown if line.endswith(" 1.0")] == [
            f'trimtab_switch_phase{{deployment="d",phase="{phase}"}} 1.0'
        ]


def test_a_deployment_has_all_its_series_from_the_start_and_none_after_its_end(
    registry: CollectorRegistry,
) -> None:
    metrics = DeploymentMetrics(registry)
    bare = lines(registry)
    metrics.rollout_changed("other", IDLE)
    one = lines(registry)
    metrics.rollout_changed("d", IDLE)
    two = lines(registry)
    assert len(two) - len(one) == len(one) - len(bare)
    metrics.rollout_changed("d", OFFERED)
    for outcome in ("offered", "committed", "applied", "aborted"):
        metrics.switch_progressed("d", outcome)
    for cause in Cause:
        metrics.switch_aborted("d", cause)
    for result in ("accepted", "gap", "repeated", "refused"):
        metrics.report_handled("d", result, None)
    for tell in (metrics.message_delayed, metrics.answer_ignored):
        tell("d")
    metrics.alarm("d", "why", mismatch=True)
    for reason in Reason:
        metrics.decision_made("d", Decision(reason, CANDIDATE), 0.1, None)
    metrics.placement_applied("d", 3, 300)
    assert len(lines(registry)) == len(two)
    metrics.status_refreshed("d", STATUS)
    metrics.decision_made("d", Decision(Reason.IMPROVED, CANDIDATE, CERTAINTY), 0.1, JUDGED)
    metrics.rollout_changed("d", OFFERED._replace(paused="an operator asked"))
    assert len(lines(registry)) > len(two)
    for _ in range(2):  # harmless when repeated
        metrics.deployment_closed("d")
        assert lines(registry) == one


def shown(registry: CollectorRegistry) -> set[str]:
    """The deployments that have series."""
    return {name for line in lines(registry) for name in re.findall(r'deployment="(.+?)"', line)}


def without(registry: CollectorRegistry) -> float | None:
    return registry.get_sample_value("trimtab_deployments_without_metrics")


def tell_everything(metrics: DeploymentMetrics, deployment: str) -> None:
    """Each event of a deployment once, but its end."""
    metrics.rollout_changed(deployment, OFFERED._replace(paused="an operator asked"))
    metrics.rollout_changed(deployment, IDLE)
    metrics.switch_progressed(deployment, "aborted")
    metrics.switch_aborted(deployment, Cause.LATE)
    metrics.message_received("report")
    metrics.message_delayed(deployment)
    metrics.report_handled(deployment, "accepted", None)
    metrics.answer_ignored(deployment)
    metrics.status_refreshed(deployment, STATUS)
    metrics.placement_applied(deployment, 3, 300)
    metrics.decision_made(deployment, Decision(Reason.IMPROVED, CANDIDATE, CERTAINTY), 0.1, JUDGED)
    metrics.alarm(deployment, "why", mismatch=True)


def test_only_so_many_deployments_have_series(registry: CollectorRegistry, clock: Clock) -> None:
    metrics, names = DeploymentMetrics(registry, clock, max_shown=2), ["a", "b", "c", "d"]
    for count, name in enumerate(names, start=1):
        metrics.rollout_changed(name, OFFERED)
        tell_everything(metrics, name)
        assert without(registry) == max(0, count - 2)
    assert shown(registry) == {"a", "b"}
    # What has no deployment as a label counts all of them.
    for name, labels, times in (
        ("trimtab_session_messages_total", {"kind": "report"}, 4),
        ("trimtab_switch_phase_duration_seconds_count", {"phase": "offered"}, 4),
        ("trimtab_decision_duration_seconds_count", {}, 4),
    ):
        assert registry.get_sample_value(name, labels) == times, name
    # And nobody misses an alarm.
    alarms = [
        registry.get_sample_value("trimtab_alarms_total", {"deployment": name})
        for name in ("a", "b", "", "c")
    ]
    assert alarms == [1, 1, 2, None]


def test_a_deployment_that_goes_makes_room_for_another(
    registry: CollectorRegistry, clock: Clock
) -> None:
    metrics = DeploymentMetrics(registry, clock, max_shown=2)
    for name in ("a", "b", "c", "d"):
        metrics.rollout_changed(name, OFFERED._replace(sessions=7, paused="an operator asked"))
    metrics.deployment_closed("d")
    assert (shown(registry), without(registry)) == ({"a", "b"}, 1)
    metrics.deployment_closed("a")
    assert (shown(registry), without(registry)) == ({"b"}, 1)
    clock.now += 10
    metrics.status_refreshed("c", STATUS)
    assert (shown(registry), without(registry)) == ({"b", "c"}, 0)
    # Its series are as if it had had them all the time, but for what happened meanwhile.
    for name, labels, value in (
        ("trimtab_sessions", {}, 7),
        ("trimtab_switch_phase", {"phase": "offered"}, 1),
        ("trimtab_switch_phase_age_seconds", {}, 10),
        ("trimtab_deployment_paused", {}, 1),
        ("trimtab_deployment_paused_info", {"reason": "an operator asked"}, 1),
        ("trimtab_workers", {"state": "absent"}, 1),
    ):
        assert registry.get_sample_value(name, {"deployment": "c", **labels}) == value, name


def test_an_event_of_a_deployment_that_there_is_not_creates_no_series(
    registry: CollectorRegistry, clock: Clock
) -> None:
    metrics, before = DeploymentMetrics(registry, clock), lines(registry)
    metrics.alarm("never-created", "the store failed", mismatch=False)
    metrics.message_delayed("never-created")
    assert [line.split()[0] for line in lines(registry)] == [line.split()[0] for line in before]
    alarms = registry.get_sample_value("trimtab_alarms_total", {"deployment": ""})
    assert alarms == 1


def test_decisions_are_counted_by_reason_and_show_their_imbalance(
    registry: CollectorRegistry, metrics: DeploymentMetrics
) -> None:
    for decision in (Decision(Reason.IMPROVED, CANDIDATE), Decision(Reason.TOO_SOON)):
        metrics.decision_made("d", decision, 0.1, None)
    shown = [line for line in lines(registry) if line.startswith("trimtab_decisions_total")]
    counted = [line for line in shown if line.endswith(" 1.0")]
    assert len(shown) == len(Reason)
    assert counted == [
        f'trimtab_decisions_total{{deployment="d",reason="{reason}"}} 1.0'
        for reason in ("too_soon", "improved")
    ]
    name = "trimtab_predicted_imbalance_ratio"
    ratios = [
        registry.get_sample_value(name, {"deployment": "d", "of": of})
        for of in ("in_force", "planned")
    ]
    assert ratios == [1.5, 1.2]


def test_the_certainty_of_a_decision_and_the_gain_of_a_switch_are_shown(
    registry: CollectorRegistry, metrics: DeploymentMetrics
) -> None:
    before = set(lines(registry))
    metrics.decision_made("d", Decision(Reason.BALANCED, None, CERTAINTY), 0.1, JUDGED)
    metrics.decision_made("d", Decision(Reason.TOO_SOON), 0.1, None)
    assert set(lines(registry)) - before >= {
        'trimtab_evidence_tokens{deployment="d"} 4096.0',
        'trimtab_overdispersion_ratio{deployment="d"} 1.5',
        'trimtab_noise_imbalance_ratio{deployment="d"} 1.25',
        'trimtab_distrust_ratio{deployment="d"} 2.0',
        'trimtab_switch_gain_ratio{as="promised",deployment="d"} 0.5',
        'trimtab_switch_gain_ratio{as="realised",deployment="d"} 0.375',
    }


def live(layers: str, of: str, value: float) -> str:
    labels = f'deployment="d",layers="{layers}",of="{of}",over="reports"'
    return f"trimtab_live_imbalance_ratio{{{labels}}} {value}"


def test_the_status_shows_only_what_is_known(
    registry: CollectorRegistry, metrics: DeploymentMetrics
) -> None:
    before = set(lines(registry))
    metrics.status_refreshed("d", STATUS)
    assert set(lines(registry)) - before == {
        live("worst", "predicted", 1.5),
        live("median", "predicted", 1.25),
        live("mean", "predicted", 1.3),
        live("worst", "shadow", 1.1),
        live("median", "shadow", 1.05),
        live("mean", "shadow", 1.07),
        'trimtab_workers{deployment="d",state="connected"} 1.0',
        'trimtab_workers{deployment="d",state="absent"} 1.0',
        'trimtab_ranks{deployment="d",serving="in_force"} 1.0',
        'trimtab_ranks{deployment="d",serving="next"} 0.0',
        'trimtab_ranks{deployment="d",serving="other"} 0.0',
        'trimtab_placement_epoch{deployment="d"} 2.0',
        'trimtab_placement_generation{deployment="d"} 7.0',
        'trimtab_placement_age_seconds{deployment="d"} 40.0',
        'trimtab_estimate_age_seconds{deployment="d"} 3.0',
        'trimtab_deployment_switched_by{by="workers",deployment="d"} 1.0',
        'trimtab_deployment_switched_by{by="engine",deployment="d"} 0.0',
        'trimtab_deployment_mode{deployment="d",mode="off"} 0.0',
        'trimtab_deployment_mode{deployment="d",mode="shadow"} 1.0',
        'trimtab_deployment_mode{deployment="d",mode="active"} 0.0',
        'trimtab_deployment_mode{deployment="d",mode="pinned"} 0.0',
    }
    # Nobody has reported since: what is not known any more is not shown any more.
    nothing = replace(STATUS, balance=BalanceStatus(), in_force_seconds=None, workers=())
    metrics.status_refreshed("d", nothing)
    gone = ("imbalance_ratio", "placement_age", "estimate_age")
    shown = [line for line in set(lines(registry)) - before if any(name in line for name in gone)]
    assert shown == []


def test_the_reason_of_a_pause_is_shown_while_it_lasts(
    registry: CollectorRegistry, metrics: DeploymentMetrics
) -> None:
    for why, shown in (("first", 1), ("second " * 100, 1), (None, 0)):
        metrics.rollout_changed("d", IDLE._replace(paused=why))
        assert str(lines(registry)).count("paused_info{") == shown
        assert why is None or f'reason="{why[:100]}"' in str(lines(registry))


def test_the_duration_of_a_phase_is_recorded_when_it_ends(
    registry: CollectorRegistry, metrics: DeploymentMetrics, clock: Clock
) -> None:
    for phase, seconds in (("idle", 50), ("offered", 3), ("committed", 2), ("idle", 9)):
        metrics.rollout_changed("d", OFFERED._replace(phase=phase))
        clock.now += seconds
    name = "trimtab_switch_phase_duration_seconds"
    sums = {p: registry.get_sample_value(f"{name}_sum", {"phase": p}) for p in PHASES}
    assert sums == {"idle": None, "offered": 3, "committed": 2, "aborting": None}


async def scraped(app: App) -> str:
    def read() -> bytes:
        with urllib.request.urlopen(f"http://{app.metrics_address}/metrics", timeout=10) as page:
            text: bytes = page.read()
            return text

    return (await asyncio.to_thread(read)).decode()


async def test_a_server_shows_its_sessions_and_switches() -> None:
    async with (
        App(make_config(metrics_listen="127.0.0.1:0", report_seconds=0.05)) as app,
        grpc.aio.insecure_channel(app.address) as channel,
    ):
        peers = await group(channel)
        unused = await joined(channel, hello(0, 2, deployment="unused"))
        for seq in (1, 1):
            await peers[0].say(report=report(seq))
            await peers[0].hear("report_ack")
        await trigger(app.address, "d", AFTER)
        for peer in peers:
            offer = await peer.hear("offer")
            await peer.say(prepared=switch_pb2.Prepared(**about(offer)))
        for peer in peers:
            await peer.hear("commit")
        text = await scraped(app)
        for line in (
            'trimtab_sessions{deployment="d"} 2.0',
            'trimtab_sessions{deployment="unused"} 1.0',
            'trimtab_session_messages_total{kind="hello"} 3.0',
            'trimtab_session_messages_total{kind="report"} 2.0',
            'trimtab_session_messages_total{kind="prepared"} 2.0',
            'trimtab_reports_total{deployment="d",result="accepted"} 1.0',
            'trimtab_reports_total{deployment="d",result="repeated"} 1.0',
            'trimtab_switches_total{deployment="d",outcome="committed"} 1.0',
            'trimtab_switches_total{deployment="d",outcome="applied"} 0.0',
            'trimtab_switch_phase{deployment="d",phase="committed"} 1.0',
            'trimtab_deployment_paused{deployment="d"} 0.0',
            'trimtab_alarms_total{deployment="d"} 0.0',
            "trimtab_store_failures_total 0.0",
        ):
            assert line in text
        age_of = 'trimtab_switch_phase_age_seconds{deployment="d"}'
        (age,) = [line for line in text.splitlines() if line.startswith(age_of)]
        assert float(age.split()[-1]) > 0
        await unused.say(goodbye=pb.Goodbye())
        await unused.end()
        await until(lambda: len(app._deployments.all()) == 1)
        assert "unused" not in await scraped(app)
