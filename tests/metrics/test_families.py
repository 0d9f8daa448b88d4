from __future__ import annotations

import re
import subprocess
import urllib.request

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tests.metrics.test_deployments import CERTAINTY, JUDGED, STATUS
from tests.services import program
from trimtab_protocol.version import Version
from trimtab_server.domain.errors import InvalidArgumentError
from trimtab_server.engine.observer import RolloutSummary
from trimtab_server.metrics.deployments import DeploymentMetrics
from trimtab_server.metrics.endpoint import serve_metrics
from trimtab_server.metrics.families import FAMILIES
from trimtab_server.metrics.recorder import Recorder
from trimtab_server.policy.decide import Decision, Reason
from trimtab_server.rollout.effects import Cause


def test_a_family_is_what_its_name_and_labels_say() -> None:
    for each in FAMILIES:
        assert re.fullmatch(r"\w+(\{\w+(,\w+)*\})?", each.signature), "no spaces"
        assert (each.kind == "counter") == each.name.endswith("_total")


def busy_recorder() -> Recorder:
    """A recorder that has received an event of every kind."""
    recorder = Recorder()
    recorder.runs_on("cpu", "a CPU", "reference")
    recorder.built_from("1.2.3", "2.13.0")
    recorder.call_started("trimtab.v1.SolverService/Pack")
    recorder.call_started("trimtab.v1.SolverService/Place")
    recorder.call_ended("trimtab.v1.SolverService/Place", "OK", 0.02)
    recorder.load_answered("OK")
    recorder.queue_depth(3)
    recorder.queue_waited(0.002)
    recorder.queue_rejected("full")
    recorder.stage("pack", "reference", "fast", 0.01)
    recorder.solved(20, 7)
    recorder.imbalance("before", 2.5, 1.3)
    recorder.imbalance("after", 1.0005, 1.0)
    recorder.imbalance_bound(1.25, 1.0)
    recorder.fallback("cuda", "shape")
    recorder.follow_kinds("cuda", lambda: {"ready": 2, "compiling": 0, "failing": 1})
    recorder.moves_planned(4)
    deployments = DeploymentMetrics(recorder.registry, clock=iter(range(100, 1000, 5)).__next__)
    for phase in ("offered", "idle"):
        deployments.rollout_changed("gone", RolloutSummary(1, phase, None, None))
    deployments.deployment_closed("gone")
    deployments.rollout_changed("d", RolloutSummary(3, "idle", None, None))
    deployments.rollout_changed(
        "d", RolloutSummary(2, "committed", Version(1, 7), "an operator asked")
    )
    deployments.status_refreshed("d", STATUS)
    deployments.decision_made("d", Decision(Reason.BALANCED, None, CERTAINTY), 0.1, JUDGED)
    deployments.message_received("report")
    deployments.message_delayed("d")
    deployments.report_handled("d", "gap", None)
    deployments.answer_ignored("d")
    deployments.switch_progressed("d", "aborted")
    deployments.switch_aborted("d", Cause.LATE)
    deployments.alarm("d", "why", mismatch=False)
    deployments.store_failed()
    deployments.store_health_changed("the disk is full")
    return recorder


EXPECTED = {
    ("trimtab_rpc_requests_total", "trimtab.v1.SolverService/Place", "OK"): 1,
    ("trimtab_rpc_duration_seconds_sum", "trimtab.v1.SolverService/Place"): 0.02,
    ("trimtab_rpc_in_flight", "trimtab.v1.SolverService/Place"): 0,
    ("trimtab_rpc_in_flight", "trimtab.v1.SolverService/Pack"): 1,
    ("trimtab_solver_stage_duration_seconds_sum", "pack", "reference", "fast"): 0.01,
    ("trimtab_stream_loads_total", "OK"): 1,
    ("trimtab_queue_depth",): 3,
    ("trimtab_queue_wait_seconds_sum",): 0.002,
    ("trimtab_queue_rejected_total", "full"): 1,
    ("trimtab_imbalance_ratio_sum", "before", "worst"): 2.5,
    ("trimtab_imbalance_ratio_sum", "before", "median"): 1.3,
    ("trimtab_imbalance_ratio_sum", "after", "worst"): 1.0005,
    ("trimtab_imbalance_bound_ratio_sum", "worst"): 1.25,
    ("trimtab_imbalance_bound_ratio_sum", "median"): 1.0,
    ("trimtab_backend_fallbacks_total", "cuda", "shape"): 1,
    ("trimtab_backend_kinds", "cuda", "ready"): 2,
    ("trimtab_backend_kinds", "cuda", "failing"): 1,
    ("trimtab_solver_iterations_total",): 20,
    ("trimtab_solver_swaps_total",): 7,
    ("trimtab_moves_total",): 4,
    ("trimtab_device_info", "cpu", "a CPU", "reference"): 1,
    ("trimtab_sessions", "d"): 2,
    ("trimtab_session_messages_total", "report"): 1,
    ("trimtab_session_messages_delayed_total", "d"): 1,
    ("trimtab_reports_total", "d", "gap"): 1,
    ("trimtab_reports_total", "d", "accepted"): 0,
    ("trimtab_answers_ignored_total", "d"): 1,
    ("trimtab_switches_total", "d", "aborted"): 1,
    ("trimtab_switch_aborts_total", "d", "late"): 1,
    ("trimtab_switch_phase", "d", "committed"): 1,
    ("trimtab_switch_phase", "d", "idle"): 0,
    ("trimtab_switch_phase_age_seconds", "d"): 5,
    ("trimtab_switch_phase_duration_seconds_sum", "offered"): 5,
    ("trimtab_workers", "d", "absent"): 1,
    ("trimtab_deployment_paused_info", "d", "an operator asked"): 1,
    ("trimtab_deployment_paused", "d"): 1,
    ("trimtab_alarms_total", "d"): 1,
    ("trimtab_store_failures_total",): 1,
    ("trimtab_store_failing",): 1,
}


def test_recorded_values_can_be_read() -> None:
    registry = busy_recorder().registry
    labels = {family.name: family.labels for family in FAMILIES}
    for (name, *values), expected in EXPECTED.items():
        family = name.removesuffix("_sum")
        found = registry.get_sample_value(name, dict(zip(labels[family], values, strict=True)))
        assert found == pytest.approx(expected), name


def test_the_exposed_metrics_are_the_documented_ones() -> None:
    text = generate_latest(busy_recorder().registry).decode()
    exposed = {
        family.name + ("_total" if family.type == "counter" else ""): family
        for family in text_string_to_metric_families(text)
        if family.name.startswith("trimtab_")
    }
    assert list(exposed) == [family.name for family in FAMILIES]
    for family in FAMILIES:
        found = exposed[family.name]
        labels = {name for sample in found.samples for name in sample.labels} - {"le"}
        assert (found.type, found.documentation) == (family.kind, family.help)
        assert labels == set(family.labels)


def test_the_process_and_the_runtime_are_shown_too() -> None:
    text = generate_latest(Recorder().registry).decode()
    assert "process_resident_memory_bytes" in text
    assert "python_info" in text
    assert "_created" not in text


def test_recorders_share_nothing() -> None:
    busy_recorder()
    assert Recorder().registry.get_sample_value("trimtab_moves_total") == 0


@pytest.mark.process
def test_promtool_finds_nothing_to_complain_about() -> None:
    text = generate_latest(busy_recorder().registry)
    check = subprocess.run(
        [program("promtool"), "check", "metrics"], input=text, capture_output=True, check=False
    )
    assert (check.returncode, check.stdout, check.stderr) == (0, b"", b"")


def ready() -> None:
    """The readiness of a server that serves."""


def test_the_endpoint_serves_the_registry_and_closes() -> None:
    with (
        serve_metrics("127.0.0.1:0", busy_recorder().registry, ready) as address,
        urllib.request.urlopen(f"http://{address}/metrics") as answer,
    ):
        assert b"trimtab_moves_total 4.0" in answer.read()
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://{address}/metrics")


def test_an_address_in_use_is_an_error_that_names_it() -> None:
    registry = Recorder().registry
    with (
        serve_metrics("127.0.0.1:0", registry, ready) as address,
        pytest.raises(InvalidArgumentError, match=f"metrics_listen: .*{address}"),
        serve_metrics(address, registry, ready),
    ):
        pass
