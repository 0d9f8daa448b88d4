"""`trimtab check-history`: its output, and its exit code."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from tests.tools.history.runs import Line, clean, find
from trimtab_tools.cli import main

Capture = pytest.CaptureFixture[str]


def written(path: Path, lines: list[Line]) -> str:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


@pytest.fixture
def clean_file(tmp_path: Path) -> str:
    return written(tmp_path / "clean.jsonl", clean())


@pytest.fixture
def broken_file(tmp_path: Path) -> str:
    """Two ranks flip to 1.4 at different steps; the last line is of another kind."""
    lines = clean()
    find(lines, "flipped 1.4 w1")["step"] += 1
    del find(lines, "offered 2.6")["placement"]
    return written(tmp_path / "broken.jsonl", [*lines, {"kind": "ignored"}])


@pytest.fixture
def open_file(tmp_path: Path) -> str:
    """A history that ends before the last switch has been applied."""
    return written(tmp_path / "open.jsonl", clean()[:-1])


def check(capsys: Capture, *arguments: str, code: int) -> str:
    assert main(["check-history", *arguments]) == code
    out, err = capsys.readouterr()
    assert err == ""
    return out


def refuse(capsys: Capture, *arguments: str) -> str:
    assert main(["check-history", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    return err


def test_a_clean_history_is_summed_up(capsys: Capture, clean_file: str) -> None:
    out = check(capsys, clean_file, "--complete", code=0)

    events = len(Path(clean_file).read_text().splitlines())
    assert out.splitlines() == [
        f"{events} events of 1 deployment: 2 epochs, 6 flips",
        "switches: 6 offered, 3 committed, 2 aborted",
        "no violations",
    ]


def test_each_violation_is_a_line(capsys: Capture, broken_file: str) -> None:
    lines = Path(broken_file).read_text().splitlines()
    number = next(n for n, line in enumerate(lines, start=1) if '"step": 17' in line)

    out = check(capsys, broken_file, code=1)

    assert out.splitlines()[2:5] == [
        "I8 is not checked for 1 version: no placement",
        "not judged: 1 event of kind 'ignored'",
        "1 violation",
    ]
    (violation,) = out.splitlines()[5:]
    assert violation.startswith(
        f"line {number}: I5: d: 'w1' (incarnation 1) flips to 1.4 at step 17"
    )


def test_json_has_the_same_content(capsys: Capture, clean_file: str, broken_file: str) -> None:
    right = json.loads(check(capsys, clean_file, "--json", code=0))
    wrong = json.loads(check(capsys, broken_file, "--json", code=1))

    assert right["clean"] is True
    assert right["violations"] == []
    assert right["flips"] == 6
    assert wrong["clean"] is False
    assert wrong["unplaced"] == 1
    assert wrong["other_kinds"] == {"ignored": 1}
    (violation,) = wrong["violations"]
    assert (violation["invariant"], violation["deployment"]) == ("I5", "d")
    assert "at step 17" in violation["message"]
    assert json.loads(Path(broken_file).read_text().splitlines()[violation["line"] - 1])


def test_only_a_complete_run_must_have_come_to_rest(capsys: Capture, open_file: str) -> None:
    assert "no violations" in check(capsys, open_file, code=0)

    out = check(capsys, open_file, "--complete", code=1)

    assert "liveness: d: the switch to 2.6 is still committed at the end" in out


@pytest.mark.parametrize(("complete", "code"), [([], 0), (["--complete"], 1)])
def test_a_history_is_read_from_standard_input(
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
    open_file: str,
    complete: list[str],
    code: int,
) -> None:
    stdin = io.TextIOWrapper(io.BytesIO(Path(open_file).read_bytes()))
    monkeypatch.setattr(sys, "stdin", stdin)

    assert "1 deployment: 2 epochs, 6 flips" in check(capsys, "-", *complete, code=code)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b'{"kind": "started", "term": 1}\nnot JSON\n', "line 2: is not JSON"),
        (b'{"kind": "started", "term": "x"}\n', "line 1: term: 'x' is not an integer"),
        (b'{"kind": "started"}\n', "line 1: has no 'term'"),
        (b"\x80\x81\n", "line 1: is not JSON"),
    ],
)
def test_a_file_that_cannot_be_parsed_is_named(
    capsys: Capture, tmp_path: Path, content: bytes, complaint: str
) -> None:
    path = tmp_path / "history.jsonl"
    path.write_bytes(content)

    assert refuse(capsys, str(path)).startswith(f"trimtab: {path}: {complaint}")


def test_a_bad_line_is_reported_instead_of_the_violations_before_it(
    capsys: Capture, broken_file: str
) -> None:
    """The lines after it cannot be checked, so there is no verdict."""
    with Path(broken_file).open("a") as lines:
        lines.write("{\n")

    assert "is not JSON" in refuse(capsys, broken_file, "--json")


def test_a_file_that_cannot_be_read_is_named(capsys: Capture, tmp_path: Path) -> None:
    assert "nowhere.jsonl" in refuse(capsys, str(tmp_path / "nowhere.jsonl"))
    assert str(tmp_path) in refuse(capsys, str(tmp_path))


def test_a_missing_file_name_is_a_wrong_command_line(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as exited:
        main(["check-history"])

    assert exited.value.code == 2
    assert "required: FILE" in capsys.readouterr().err


def test_help_has_examples(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as exited:
        main(["check-history", "--help"])

    assert exited.value.code == 0
    assert "examples:" in capsys.readouterr().out
