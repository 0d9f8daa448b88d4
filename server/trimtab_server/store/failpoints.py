"""Named points at which a test lets the store fail or the process die.

Only tests set them: in their own process, or with the hidden flag `--failpoints` of `trimtab-server
serve`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from itertools import count

from trimtab_server.domain.errors import require
from trimtab_server.store.errors import StoreError

OPERATIONS = (
    *("open", "outrank", "save", "save_counters", "save_spec", "delete", "add_operation", "probe"),
)

STAGES = ("before", "written", "durable")
"""Before anything is written; before the commit; once it is durable, and not yet known to be."""

POINTS = frozenset(f"{operation}:{stage}" for operation in OPERATIONS for stage in STAGES)
"""All points."""

_armed: dict[str, Callable[[str], None]] = {}


def configure(spec: str) -> None:
    """Set the action of each point. A point that is not named does nothing.

    Args:
        spec: such as "save:written=exit,open:durable=error". `exit` ends the process as kill -9
            would, `error` raises StoreError, `off` does nothing. "save:written=exit@3" acts
            only the third time that the point is passed.

    Raises:
        InvalidArgumentError: a point or an action does not exist. Nothing has changed.
    """
    armed = dict(_parsed(entry.strip()) for entry in spec.split(",") if entry.strip())
    _armed.clear()
    _armed.update(armed)


def hit(point: str) -> None:
    """Carry out the action of a point."""
    if _armed:
        _armed.get(point, _nothing)(point)


def _parsed(entry: str) -> tuple[str, Callable[[str], None]]:
    point, _, said = entry.partition("=")
    action, at, time = said.partition("@")
    number = not at or (time.isdecimal() and int(time) > 0)
    require(number, "failpoints", f"{time!r} in {entry!r} is not a number from 1 on")
    points, actions = ", ".join(sorted(POINTS)), ", ".join(_ACTIONS)
    require(point in POINTS, "failpoints", f"{point!r} in {entry!r} is none of {points}")
    require(action in _ACTIONS, "failpoints", f"{action!r} in {entry!r} is none of {actions}")
    act = _ACTIONS[action]
    return point, _at(int(time), act) if at else act


def _at(time: int, act: Callable[[str], None]) -> Callable[[str], None]:
    passed = count(1)
    return lambda point: act(point) if next(passed) == time else None


def _nothing(point: str) -> None:
    pass


def _error(point: str) -> None:
    raise StoreError(f"failpoint {point}")


def _exit(point: str) -> None:
    # Nothing is flushed, closed or released by us. 137 is what a shell says of kill -9.
    os._exit(137)


_ACTIONS: Mapping[str, Callable[[str], None]] = {"off": _nothing, "error": _error, "exit": _exit}
