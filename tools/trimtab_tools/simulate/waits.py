"""Waiting for a fleet to have come somewhere."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from trimtab_client.exceptions import invalid
from trimtab_client.version import Version
from trimtab_tools.simulate.fleet_state import FleetState
from trimtab_tools.simulate.history_tail import Line, HistoryTail

_T = TypeVar("_T")


class Waits:
    """The part of a fleet that waits."""

    ledger: FleetState
    patience: float
    _noted: HistoryTail | None

    def wait_in_force(
        self, timeout: float | None = None, *, after: Version | None = None
    ) -> Version:
        """Wait until all ranks serve by one version; returns it.

        Args:
            timeout: in seconds; None: the fleet's patience.
            after: it has to be of a later epoch than this one: of a group formed since.
        """
        epoch = 0 if after is None else after.epoch

        def found() -> Version | None:
            version = self._in_force()
            return None if version is None or version.epoch <= epoch else version

        later = f" after {epoch}" if epoch else ""
        return self.wait(f"all ranks to be in one epoch{later}", found, timeout)

    def wait_flipped(self, digest: bytes, timeout: float | None = None) -> Version:
        """Wait until all ranks serve by the placement of this digest; returns its version."""
        what = f"all ranks to serve by {digest.hex()[:8]}"
        return self.wait(what, partial(self._all_at, digest), timeout)

    def wait_noted(
        self, kind: str, *, count: int = 1, timeout: float | None = None, **values: Any
    ) -> list[Line]:
        """Wait until the history has so many lines of a kind with these values; returns all."""

        def found() -> list[Line] | None:
            lines = self.history.lines(kind, **values)
            return lines if len(lines) >= count else None

        return self.wait(f"{count} of {kind!r} {values or ''} in the history", found, timeout)

    @property
    def history(self) -> HistoryTail:
        """What the history says so far.

        Raises:
            InvalidArgumentError: there is none.
        """
        if self._noted is None:
            raise invalid("history", "None is kept: name the file of the server's")
        return self._noted

    def wait(
        self, what: str, condition: Callable[[], _T | None], timeout: float | None = None
    ) -> _T:
        """Wait until a condition gives something.

        Raises:
            FleetError: the fleet cannot go on.
            DeadlineExceededError: it took longer than `timeout`, or than the fleet's patience.
        """
        return self.ledger.wait(what, condition, self.patience if timeout is None else timeout)

    def _in_force(self) -> Version | None:
        """The version by which all ranks serve, if there is one, in the present group."""
        states = self.ledger.ranks
        versions = {state.version for state in states}
        if any(state.group != self.ledger.group for state in states) or len(versions) != 1:
            return None
        return versions.pop()

    def _all_at(self, digest: bytes) -> Version | None:
        version = self._in_force()
        return version if all(each.digest == digest for each in self.ledger.ranks) else None
