"""`trimtab check-engine`: its output, and its exit code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools.cli.conftest import Cli

SMALL = ["--layers", "2", "--experts", "4", "--slots", "6", "--gpus", "2"]
CHECK = ["check-engine", *SMALL, "--transfer", "pull"]

ENGINES = """
import threading

from trimtab_tools.conformance import inprocess
from trimtab_tools.conformance.reference import NumpyEngine


class Forgetful(NumpyEngine):
    def _incoming(self, offer):
        return self._staged


class Stuck(NumpyEngine):
    def on_offer(self, offer):
        threading.Thread(target=threading.Event().wait).start()
        threading.Event().wait()


def forgetful(spec):
    return inprocess.make_group(spec, Forgetful)


def stuck(spec):
    if len(spec.gpus) > 1:
        raise NotImplementedError("one owner only")
    return inprocess.make_group(spec, Stuck)


nothing = None
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a module of engines, and a module that cannot be imported."""
    (tmp_path / "my_engines.py").write_text(ENGINES)
    (tmp_path / "broken_engine.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "my_engines", raising=False)
    return tmp_path


def test_without_a_factory_the_reference_is_checked(cli: Cli) -> None:
    header, *cases, skipped, summed_up = cli.out(*CHECK).splitlines()

    assert header.split() == ["pull", "each", "pull", "several", "pull", "one"]
    assert cases[0].split() == ["start", "ok", "-", "ok"]
    assert skipped == "16 skipped: two ranks with several GPUs need at least three GPUs"
    assert summed_up == "29 ok, 0 failed, 16 skipped"


def test_each_failure_is_a_line_that_says_what_should_hold(cli: Cli, folder: Path) -> None:
    out = cli.out(*CHECK, "my_engines:forgetful", code=1)

    (line,) = (line for line in out.splitlines() if line.startswith("pull-chain-each: "))
    assert "a copy reads what was in force before the flip: rank " in line
    assert "computes as expert" in line
    (row,) = (line.split() for line in out.splitlines() if line.startswith("chain "))
    assert row == ["chain", "FAILED", "-", "FAILED"]


@pytest.mark.slow
def test_json_has_the_same_content(cli: Cli, folder: Path) -> None:
    right = cli.json(*CHECK, "--seed", "3")
    wrong = cli.json(*CHECK, "my_engines:forgetful", code=1)

    assert right["ok"] is True
    assert right["seed"] == 3
    assert right["shape"]["slots"] == 6
    assert {case["verdict"] for case in right["cases"]} == {"ok", "skipped"}
    assert wrong["ok"] is False
    (chain,) = (case for case in wrong["cases"] if case["case"] == "pull-chain-each")
    assert chain["verdict"] == "failed"
    assert "computes as expert" in chain["message"]
    assert chain["reason"]


@pytest.mark.slow
def test_by_default_both_kinds_of_transfer_are_checked(cli: Cli) -> None:
    cases = cli.json("check-engine", *SMALL)["cases"]
    assert {case["case"].split("-")[0] for case in cases} == {"pull", "collective"}


@pytest.mark.process
def test_an_engine_that_is_stuck_does_not_keep_the_command_from_ending(folder: Path) -> None:
    trimtab = Path(sys.executable).with_name("trimtab")
    command = [trimtab, *CHECK, "my_engines:stuck", "--patience", "0.1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    assert (done.returncode, done.stderr) == (1, "")
    failed = "pull-prepare-one: a transfer changes nothing that is in force: rank 0 (GPUs 0, 1): "
    assert failed in done.stdout
    assert "on_offer of 1.1 has not ended after 0.1 s" in done.stdout


@pytest.mark.parametrize(
    ("factory", "complaint"),
    [
        ("my_engines", "'my_engines' is not MODULE:FACTORY"),
        ("no_engine:make", "no_engine:make: ModuleNotFoundError"),
        ("my_engines:make", "my_engines:make: AttributeError"),
        ("my_engines:nothing", "my_engines:nothing: None cannot be called"),
        ("broken_engine:make", "broken_engine:make: ZeroDivisionError"),
    ],
)
def test_a_factory_that_cannot_be_imported_is_named(
    cli: Cli, folder: Path, factory: str, complaint: str
) -> None:
    assert complaint in cli.err("check-engine", factory, code=2)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--gpus", "5"], "gpus: 5 does not divide the number of slots (12)"),
        (["--staging-slots", "0"], "staging_slots: 0 is not in [1, inf]"),
        (["--transfer", "magic"], "--transfer: invalid choice: 'magic'"),
        (["--seed", "-1"], "--seed has to be at least 0"),
        (["--patience", "0"], "--patience above 0"),
    ],
)
def test_an_impossible_option_is_a_usage_error(
    cli: Cli, arguments: list[str], complaint: str
) -> None:
    assert complaint in cli.err("check-engine", *arguments, code=2)
