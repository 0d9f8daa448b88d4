"""`python -m tests.gpu` runs rarely, where there is a device: here it is tried without one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from trimtab_server.domain.topology import Topology
from trimtab_server.solver.backends.backend import Solved
from trimtab_server.solver.backends.reference.backend import Reference
from trimtab_server.solver.settings import Settings

pytest.importorskip("triton")

from tests.gpu import __main__ as script
from tests.gpu import agreement, sections
from tests.gpu.report import Report, read_tables

CPU = torch.device("cpu")


def carried_out(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.gpu", *arguments],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def rehearse(folder: Path, *sections: str) -> tuple[dict[str, Any], str]:
    """The results of these sections, and what was printed."""
    file = folder / "results.json"
    done = carried_out("--rehearse", "--json", str(file), *sections)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(file.read_text())
    assert results["surroundings"]["torch"] == torch.__version__
    return results["sections"], done.stdout


@pytest.mark.slow
@pytest.mark.concurrent
def test_a_rehearsal_compares_answers(tmp_path: Path) -> None:
    found, _ = rehearse(tmp_path, "compile", "agreement")
    outcomes = {name: ran["outcome"] for name, ran in found.items()}
    assert outcomes == {"compile": "passed", "agreement": "passed"}
    (answers,) = found["agreement"]["tables"].popitem()[1]
    assert answers["requests answered alike"] > 0
    assert answers["not"] == 0


@pytest.mark.slow
@pytest.mark.concurrent
def test_a_rehearsal_prints_what_it_would_measure(tmp_path: Path) -> None:
    passed = ("plans", "phases", "place")
    found, printed = rehearse(tmp_path, *passed, "beside")
    outcomes = {name: ran["outcome"] for name, ran in found.items()}
    assert outcomes == {**dict.fromkeys(passed, "passed"), "beside": "left out"}
    for row in found["plans"]["tables"].popitem()[1]:
        name = row.pop("plan")
        assert f"| {name} |" in printed, "the table says the same"
        assert all(value > 0 for value in row.values())


@pytest.mark.concurrent
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device")
def test_without_a_device_nothing_is_measured() -> None:
    done = carried_out()
    assert done.returncode == 1
    assert "no CUDA device here" in done.stderr


class _Wrong(Reference):
    def plan(self, load_LE: Tensor, topology: Topology, settings: Settings) -> Solved:
        right = super().plan(load_LE, topology, settings)
        return right._replace(phy2log_LR=right.phy2log_LR.flip(1))


def test_a_wrong_answer_is_seen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(agreement, "DEVICE", CPU)
    load_LE = torch.arange(8, dtype=torch.float64).reshape(1, 8)
    ask = agreement._plan(load_LE, Topology(8, 4), Settings(2, None, 1))
    assert agreement._same("right", ask, Reference(), Reference(), [])
    assert not agreement._same("wrong", ask, _Wrong(), Reference(), [])
    assert capsys.readouterr().out == "- wrong: DIFFERENT []\n"


def test_what_another_backend_answered_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "DEVICE", CPU)
    load_LE = torch.arange(8, dtype=torch.float64).reshape(1, 8)
    ask = agreement._plan(load_LE, Topology(8, 4), Settings(2, None, 1))
    told = [("cuda", "error", "no memory left")]
    assert not agreement._same("passed on", ask, Reference(), Reference(), told)
    assert told == [], "the next request begins anew"


@pytest.mark.process
def test_a_section_that_takes_too_long_has_failed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sections.SECTIONS, "plans", sections.Section("plans", 0))
    assert script._carried_out("plans", [], 1)["outcome"] == "failed"
    assert "plans was stopped after 0 s" in capsys.readouterr().out


@pytest.mark.process
def test_a_section_that_crashes_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script.sys, "executable", "/bin/false")
    assert script._carried_out("plans", [], 1)["outcome"] == "failed"


def test_rows_are_kept_one_by_one(tmp_path: Path) -> None:
    file = tmp_path / "rows"

    def rows() -> Any:
        yield ["a", 1.5]
        assert read_tables(file) == {"T": [{"what": "a", "us": 1.5}]}, "before the next is there"
        yield ["b", 1234.5]

    Report(file).table("T", ["what", "us"], rows())
    assert read_tables(file)["T"][1] == {"what": "b", "us": 1234.5}
