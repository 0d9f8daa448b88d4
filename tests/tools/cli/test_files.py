"""Loads in files: sums over traces."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from tests.tools.cli.conftest import Cli
from trimtab_tools.cli.errors import CommandError
from trimtab_tools.cli.files import read_load


def summed(path: Path, trace: np.ndarray) -> np.ndarray:
    file = path / "trace.npz"
    np.savez(file, load=trace)
    return read_load([file], None, None, None, total=True)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int8, np.uint16, np.int32])
def test_narrow_counts_are_summed_in_wide_numbers(tmp_path: Path, dtype: type) -> None:
    most = 60_000 if dtype == np.float16 else 100
    trace = np.full((1000, 1, 2), most, dtype)
    assert summed(tmp_path, trace).tolist() == [[1000 * most] * 2]


def test_large_counts_are_summed_exactly(tmp_path: Path) -> None:
    trace = np.array([[[2**61, 1]], [[2**61 + 1, 2]], [[2**61, 0]]])
    assert summed(tmp_path, trace).tolist() == [[3 * 2**61 + 1, 3]]


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
def test_a_sum_that_would_wrap_around_is_refused(tmp_path: Path, dtype: type) -> None:
    trace = np.array([[[1, 2**62]], [[1, 2**62]]], dtype)
    with pytest.raises(CommandError, match=r"layer 0, expert 1: the sum, 9.223e\+18, is beyond"):
        summed(tmp_path, trace)


PLACE = ("--gpus", "2", "--replicas", "4", "--local")


def typed(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    """The command's standard input has this content."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))


def test_place_reads_a_load_or_a_placement_from_standard_input(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, placement = tmp_path / "load.json", tmp_path / "placement.json"
    load.write_text("[[1, 2, 3, 4]]")
    placement.write_text("[[0, 1, 2, 3]]")
    expected = cli.json("place", load, *PLACE)

    typed(monkeypatch, load.read_bytes())
    assert cli.json("place", "-", *PLACE)["placement"] == expected["placement"]
    typed(monkeypatch, b"layer,expert,load\n0,0,1\n0,1,2\n0,2,3\n0,3,4\n")
    found = cli.json("place", "-", "--format", "csv", *PLACE)
    assert found["placement"] == expected["placement"]
    typed(monkeypatch, placement.read_bytes())
    assert cli.json("place", load, *PLACE, "--current", "-")["before"]["layout"] == "current"
    typed(monkeypatch, b"[[1, 2], [3, null]]")
    assert "standard input: load[1, 1]: null is not a number" in cli.err("place", "-", *PLACE)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["place", "-", "-", *PLACE], "can be read once"),
        (["place", "-", *PLACE, "--current", "-"], "can be read once"),
        (["place", "load.npz", *PLACE, "--output", "-"], "--output cannot be -: the report is"),
        (["simulate", "--trace", "-"], "--trace cannot be -: each rank reads it"),
        (["simulate", "--history", "-"], "--history cannot be -: several processes write it"),
    ],
)
def test_where_a_dash_makes_no_sense_it_is_refused(
    cli: Cli, arguments: list[str], complaint: str
) -> None:
    assert complaint in cli.err(*arguments, code=2)


@pytest.mark.parametrize(
    ("content", "flags", "complaint"),
    [
        ("[[1, 2], [3, NaN]]", [], "load[1, 1]: nan is not finite"),
        ("[[1, 2], [-3, 4]]", [], "load[1, 0]: -3 is negative"),
        ("[[[1, 2]], [[3, Infinity]]]", ["--sum"], "load[1, 0, 1]: inf is not finite"),
        ("[[[1, 2]], [[3, -Infinity]]]", ["--index", "-1"], "load[1, 0, 1]: -inf is not finite"),
        ("[[[1, 2]], [[3, -4]]]", ["--index", "1"], "load[1, 0, 1]: -4 is negative"),
    ],
)
def test_a_wrong_number_is_named_by_window_layer_and_expert(
    cli: Cli, tmp_path: Path, content: str, flags: list[str], complaint: str
) -> None:
    path = tmp_path / "load.json"
    path.write_text(content)

    assert cli.err("place", path, *PLACE, *flags) == f"trimtab: {path}: {complaint}\n"


def test_a_window_that_is_not_asked_for_may_be_wrong(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "load.json"
    path.write_text("[[[1, 2, 3, 4]], [[3, NaN, 1, 1]]]")

    assert cli.json("place", path, *PLACE, "--index", "0")["placement"]["num_experts"] == 4
