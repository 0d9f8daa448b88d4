"""A real Prometheus, with the configuration that is shipped, scrapes a real server."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.servers import ServerProcess
from tests.services import program
from trimtab_client import Client, Topology
from trimtab_server.metrics.families import FAMILIES

DEPLOY = Path(__file__).parents[1] / "deploy"
RULES = DEPLOY / "alerts.yml"


def promtool(*arguments: str | Path) -> str:
    command = [program("promtool"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.process
def test_the_shipped_configuration_and_rules_are_valid():
    assert "12 rules found" in promtool("check", "config", DEPLOY / "prometheus.yml")


def test_the_rules_ask_for_metrics_that_there_are() -> None:
    shown = {
        f"{family.name}{suffix}"
        for family in FAMILIES
        for suffix in (("_bucket", "_sum", "_count") if family.kind == "histogram" else ("",))
    }
    expressions = re.findall(
        r"expr: (.*?)^        (?:for|labels):", RULES.read_text(), re.MULTILINE | re.DOTALL
    )
    asked = {name for each in expressions for name in re.findall(r"trimtab_\w+", each)}
    assert len(expressions) == 12
    assert asked
    assert asked <= shown


DEPLOYMENT = '{instance="a",deployment="d"}'
PHASE = 'trimtab_switch_phase{instance="a",deployment="d",phase="%s"}'
AGE = f"trimtab_switch_phase_age_seconds{DEPLOYMENT}"
RISING = "0+60x20"
LIVE = (
    'trimtab_live_imbalance_ratio{instance="a",deployment="d",of="predicted",over="%s",'
    'layers="mean"}'
)
MODE = 'trimtab_deployment_mode{instance="a",deployment="d",mode="%s"}'
BY = 'trimtab_deployment_switched_by{instance="a",deployment="d",by="%s"}'
WITHOUT_METRICS = 'trimtab_deployments_without_metrics{instance="a"}'
WORKERS = 'trimtab_workers{instance="a",deployment="d",state="%s"}'


@pytest.mark.process
@pytest.mark.parametrize(
    ("series", "firing"),
    [
        ({f"trimtab_deployment_paused{DEPLOYMENT}": "0 0 1x18"}, "TrimtabPaused ticket"),
        ({f"trimtab_deployment_paused{DEPLOYMENT}": "0x20"}, None),
        ({f"trimtab_alarms_total{DEPLOYMENT}": "0x9 1x10"}, "TrimtabAlarm page"),
        ({f"trimtab_alarms_total{DEPLOYMENT}": "_x9 1x10"}, "TrimtabAlarm page"),
        ({f"trimtab_alarms_total{DEPLOYMENT}": "1x20"}, None),
        ({'trimtab_store_failures_total{instance="a"}': "0x9 1x10"}, "TrimtabStoreFailing page"),
        ({'trimtab_store_failures_total{instance="a"}': "1x20"}, None),
        ({'trimtab_store_failing{instance="a"}': "0x9 1x10"}, "TrimtabStoreFailing page"),
        ({'trimtab_store_failing{instance="a"}': "1x5 0x15"}, None),
        ({PHASE % "offered": "1x20", AGE: RISING}, "TrimtabSwitchStuck ticket"),
        ({PHASE % "aborting": "1x20", AGE: RISING}, "TrimtabSwitchStuck ticket"),
        (
            {PHASE % "offered": "1x20", AGE: RISING, BY % "workers": "1x20"},
            "TrimtabSwitchStuck ticket",
        ),
        ({PHASE % "offered": "1x20", AGE: RISING, BY % "engine": "1x20"}, None),
        ({PHASE % "aborting": "1x20", AGE: "0+40x20"}, None),
        ({PHASE % "aborting": "0x20", PHASE % "committed": "1x20", AGE: RISING}, None),
        ({LIVE % "estimate": "1.5x20", MODE % "active": "1x20"}, "TrimtabUnbalanced ticket"),
        ({LIVE % "estimate": "1.5x20", MODE % "active": "0x20"}, None),
        ({LIVE % "reports": "1.5x20", MODE % "active": "1x20"}, None),
        ({LIVE % "estimate": "1.2x20", MODE % "active": "1x20"}, None),
        ({WITHOUT_METRICS: "3x20"}, "TrimtabDeploymentsWithoutMetrics ticket"),
        ({WITHOUT_METRICS: "0x20"}, None),
        ({WORKERS % "absent": "3x20"}, "TrimtabWorkersAbsent ticket"),
        ({WORKERS % "absent": "0x20", WORKERS % "connected": "3x20"}, None),
    ],
    ids=[
        *("paused", "not paused", "an alarm", "the first alarm of a new series", "an old alarm"),
        *("a failure of the store", "an old one", "a store that fails", "one that works again"),
        *("offered for long", "aborting for long"),
        *(
            "offered to workers",
            "offered to an engine",
            "aborting",
            "committed for long",
            "unbalanced",
            "in the shadow",
            "for a moment",
        ),
        *("balanced", "deployments without metrics", "none", "absent workers", "all are there"),
    ],
)
def test_an_alert_fires_where_somebody_has_to_look(
    tmp_path: Path, series: dict[str, str], firing: str | None
) -> None:
    """Minute by minute; what fires is asked 12 minutes from the start."""
    wanted = []
    if firing is not None:
        name, severity = firing.split()
        labels = f'{{alertname="{name}", severity="{severity}"}}'
        wanted = [{"labels": labels, "value": 1}]
    asked = {
        "expr": 'count by (alertname, severity) (ALERTS{alertstate="firing"})',
        "eval_time": "12m",
        "exp_samples": wanted,
    }
    told = [{"series": name, "values": values} for name, values in series.items()]
    test = {"interval": "1m", "input_series": told, "promql_expr_test": [asked]}
    document = {"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [test]}
    # JSON is YAML too.
    (tmp_path / "tests.yml").write_text(json.dumps(document))
    promtool("test", "rules", tmp_path / "tests.yml")


@pytest.fixture
def prometheus(server: ServerProcess, tmp_path: Path) -> Iterator[str]:
    """Its URL, while it scrapes the server once a second."""
    binary = program("prometheus")
    shipped = (DEPLOY / "prometheus.yml").read_text()
    changes = {"server:9464": server.metrics_address, "interval: 5s": "interval: 1s"}
    for name, value in changes.items():
        assert name in shipped
        shipped = shipped.replace(name, value)
    (tmp_path / "prometheus.yml").write_text(shipped)
    (tmp_path / "alerts.yml").write_text((DEPLOY / "alerts.yml").read_text())
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [
        binary,
        f"--config.file={tmp_path / 'prometheus.yml'}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address={address}",
    ]
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(command, stdout=log, stderr=log) as process,
    ):
        yield f"http://{address}"
        process.terminate()


def answer(url: str, query: str) -> list[Any]:
    """Result of an instant query; empty while Prometheus is not up or knows nothing."""
    path = "/api/v1/query?" + urllib.parse.urlencode({"query": query})
    try:
        with urllib.request.urlopen(url + path, timeout=5) as page:
            return list(json.load(page)["data"]["result"])
    except OSError:
        return []


def first_answer(url: str, query: str) -> list[Any]:
    """The first result that is not empty. Prometheus has no event to wait for, so ask again."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if result := answer(url, query):
            return result
    raise AssertionError(f"no answer to {query}")


@pytest.mark.slow
def test_prometheus_sees_what_the_server_did(server, prometheus):
    with Client(server.address) as client:
        client.place(np.arange(1.0, 9.0).reshape(1, 8), Topology(12, 4))
    assert first_answer(prometheus, 'up{job="trimtab"} == 1')
    calls = 'trimtab_rpc_requests_total{method="trimtab.v1.SolverService/Place",code="OK"} > 0'
    assert first_answer(prometheus, calls)
    (worst,) = first_answer(
        prometheus,
        'trimtab_imbalance_ratio_sum{when="after",layers="worst"}'
        ' / trimtab_imbalance_ratio_count{when="after",layers="worst"} >= 1',
    )
    assert float(worst["value"][1]) >= 1.0
