"""What `trimtab simulate` shows while it runs."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from trimtab_tools.simulate.fleet import Fleet

_INTERVAL_S = 0.2
_LINE_SECONDS = 10.0
_BAR_WIDTH = 24
_CLEAR = "\r\x1b[K"


@contextmanager
def progress(
    fleet: Fleet,
    news: Callable[[], Iterable[str]] | None = None,
    line_seconds: float = _LINE_SECONDS,
) -> Iterator[None]:
    """Show on standard error how far the fleet is.

    On a terminal that is a line that changes. Elsewhere, and if NO_COLOR is set or TERM is "dumb",
    it is a line now and then and one for each fault, without escape sequences.

    Args:
        fleet: whose progress.
        news: returns the lines since its last call, for standard output. With these there are no
            plain lines on standard error beside them.
        line_seconds: time between two plain lines.
    """
    shown = _display(fleet, news, line_seconds)
    ended = threading.Event()

    def update() -> None:
        for line in [] if news is None else news():
            shown.make_room()
            print(line, flush=True)
        shown.update()

    def update_until_ended() -> None:
        while not ended.wait(_INTERVAL_S):
            update()
        update()
        shown.make_room()

    thread = threading.Thread(target=update_until_ended, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


class _Display(Protocol):
    """Shows the progress. One thread uses it."""

    def make_room(self) -> None:
        """Something else is about to be printed."""

    def update(self) -> None:
        """Show what has changed."""


class _Nothing:
    """See `_Display`."""

    def make_room(self) -> None:
        """See `_Display`."""

    def update(self) -> None:
        """See `_Display`."""


class _ChangingLine:
    """See `_Display`: one line, which is written anew."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def make_room(self) -> None:
        """See `_Display`."""
        _write(_CLEAR)

    def update(self) -> None:
        """See `_Display`."""
        _write(f"{_CLEAR}{progress_line(self._fleet)}")


class _PlainLines:
    """See `_Display`: a line each so many seconds, and one for each fault."""

    def __init__(self, fleet: Fleet, seconds: float) -> None:
        self._fleet = fleet
        self._seconds = seconds
        self._last_at = time.monotonic()
        self._faults = 0

    def make_room(self) -> None:
        """See `_Display`."""

    def update(self) -> None:
        """See `_Display`."""
        now, faults = time.monotonic(), self._fleet.state.faults
        for each in faults[self._faults :]:
            self._faults += 1
            self._say(each.at, f"fault {each.fault}")
        if now - self._last_at >= self._seconds:
            self._last_at = now
            self._say(now, progress_line(self._fleet, width=0))

    def _say(self, at: float, what: str) -> None:
        _write(f"trimtab: {at - self._fleet.state.began:.1f} s: {what}\n")


def _display(
    fleet: Fleet, news: Callable[[], Iterable[str]] | None, line_seconds: float
) -> _Display:
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    if sys.stderr.isatty() and not plain:
        return _ChangingLine(fleet)
    return _PlainLines(fleet, line_seconds) if news is None else _Nothing()


def _write(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


def progress_line(fleet: Fleet, width: int = _BAR_WIDTH) -> str:
    """The progress of a fleet on one line. `width`: of the bar; 0 for none."""
    state = fleet.state
    if not state.groups_formed:
        return "the processes start"
    total, applied = state.total(), len(state.switches_completed())
    fault = f", {state.faults[-1].fault}" if state.faults and width else ""
    wrong = f", {total.wrong} wrong" if total.wrong else ""
    if fleet.options.num_windows:
        return f"{_replayed(fleet, width)}, {applied} switches{fault}{wrong}"
    return (
        f"step {max(total.step, 0)}, {total.tokens} tokens, {total.wrong} wrong, "
        f"{applied} switches{fault}"
    )


def _replayed(fleet: Fleet, width: int) -> str:
    """A bar, and how balanced the last window was."""
    windows, number = fleet.state.windows, fleet.options.num_windows
    bar = f"[{('#' * (width * windows.ended // number)).ljust(width, '.')}] " if width else ""
    last = [each.window for each in windows.complete[-1:]]
    shown = "".join(
        f", imbalance {each.served:.2f} ({each.no_redundancy:.2f} without redundancy)"
        for each in last
    )
    return f"{bar}{windows.ended}/{number} windows{shown}"
