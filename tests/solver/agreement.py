"""Compares the answers of two backends."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, is_dataclass
from typing import Any

import torch


def fields_of(answer: Any) -> Iterable[Any]:
    """The tensors and numbers in an answer of a backend."""
    return astuple(answer) if is_dataclass(answer) else answer  # type: ignore[arg-type]


def assert_same(found: Any, expected: Any) -> None:
    """Check that two answers are equal to the last bit: all tensors, and all counts of work."""
    for ours, theirs in zip(fields_of(found), fields_of(expected), strict=True):
        if isinstance(theirs, torch.Tensor):
            assert ours.dtype == theirs.dtype
            assert ours.shape == theirs.shape
            assert torch.equal(ours, theirs), (ours, theirs)
        else:
            assert ours == theirs
