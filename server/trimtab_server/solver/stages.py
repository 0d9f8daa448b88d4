"""A hook with which callers time the stages of the solver, which has no clock."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

Stage = Callable[[str], AbstractContextManager[None]]
"""Makes a context manager for a stage: pack, plan, improve, align or evaluate."""


def untimed(name: str) -> AbstractContextManager[None]:
    """The hook that does nothing."""
    return nullcontext()
