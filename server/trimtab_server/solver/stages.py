"""A hook by which a caller that has a clock times the stages of a pure solver."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

Stage = Callable[[str], AbstractContextManager[None]]
"""Entered around each stage with its name: pack, plan, improve, align, evaluate."""


def untimed(name: str) -> AbstractContextManager[None]:
    """The hook that does nothing."""
    return nullcontext()
