"""Loads in files: sums over traces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

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
