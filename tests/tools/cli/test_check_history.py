"""`trimtab check-history`: its output, and its exit code."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.tools.cli.conftest import Cli
from tests.tools.history.runs import Line, clean, find


def written(path: Path, lines: list[Line]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def clean_file(tmp_path: Path) -> Path:
    return written(tmp_path / "clean.jsonl", clean())


@pytest.fixture
def broken_file(tmp_path: Path) -> Path:
    """Two ranks flip to 1.4 at different steps; the last line is of another kind."""
    lines = clean()
    find(lines, "flipped 1.4 w1")["step"] += 1
    del find(lines, "offered 2.6")["placement"]
    return written(tmp_path / "broken.jsonl", [*lines, {"kind": "ignored"}])


@pytest.fixture
def open_file(tmp_path: Path) -> Path:
    """A history that ends before the last switch has been applied."""
    return written(tmp_path / "open.jsonl", clean()[:-1])


def test_a_clean_history_is_summed_up(cli: Cli, clean_file: Path) -> None:
    out = cli.out("check-history", clean_file, "--complete")

    events = len(clean_file.read_text().splitlines())
    assert out.splitlines() == [
        f"{events} events of 1 deployment: 2 epochs, 6 flips",
        "switches: 6 offered, 3 committed, 2 aborted",
        "no violations",
    ]


def test_each_violation_is_a_line(cli: Cli, broken_file: Path) -> None:
    lines = broken_file.read_text().splitlines()
    number = next(n for n, line in enumerate(lines, start=1) if '"step": 17' in line)

    out = cli.out("check-history", broken_file, code=1)

    assert out.splitlines()[2:5] == [
        "I8 is not checked for 1 version: no placement",
        "not judged: 1 event of kind 'ignored'",
        "1 violation",
    ]
    (violation,) = out.splitlines()[5:]
    assert violation.startswith(
        f"line {number}: I5: d: 'w1' (incarnation 1) flips to 1.4 at step 17"
    )


def test_json_has_the_same_content(cli: Cli, clean_file: Path, broken_file: Path) -> None:
    right = cli.json("check-history", clean_file)
    wrong = cli.json("check-history", broken_file, code=1)

    assert right["clean"] is True
    assert right["violations"] == []
    assert right["flips"] == 6
    assert wrong["clean"] is False
    assert wrong["unplaced"] == 1
    assert wrong["other_kinds"] == {"ignored": 1}
    (violation,) = wrong["violations"]
    assert (violation["invariant"], violation["deployment"]) == ("I5", "d")
    assert "at step 17" in violation["message"]
    assert json.loads(broken_file.read_text().splitlines()[violation["line"] - 1])


def test_only_a_complete_run_must_have_come_to_rest_and_it_may_be_read_from_standard_input(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, open_file: Path
) -> None:
    for file in (open_file, "-"):
        for complete, code, verdict in (
            ([], 0, "no violations"),
            (["--complete"], 1, "liveness: d: the switch to 2.6 is still committed at the end"),
        ):
            with open_file.open() as stdin:
                monkeypatch.setattr(sys, "stdin", stdin)
                out = cli.out("check-history", file, *complete, code=code)
            assert "1 deployment: 2 epochs, 6 flips" in out
            assert verdict in out


def test_a_file_that_cannot_be_parsed_is_named(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_bytes(b'{"kind": "started", "term": 1}\n\x80\x81\n')

    err = cli.err("check-history", path, code=2)

    assert err.startswith(f"trimtab: {path}: line 2: is not JSON")


def test_a_bad_line_is_reported_instead_of_the_violations_before_it(
    cli: Cli, broken_file: Path
) -> None:
    """The lines after it cannot be checked, so there is no verdict."""
    with broken_file.open("a") as lines:
        lines.write("{\n")

    assert "is not JSON" in cli.err("check-history", broken_file, "--json", code=2)


def test_a_file_that_cannot_be_read_is_named(cli: Cli, tmp_path: Path) -> None:
    assert "nowhere.jsonl" in cli.err("check-history", tmp_path / "nowhere.jsonl", code=2)
    assert str(tmp_path) in cli.err("check-history", tmp_path, code=2)
