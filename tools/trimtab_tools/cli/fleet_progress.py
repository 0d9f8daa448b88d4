"""What `trimtab simulate` shows while it runs."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trimtab_tools.simulate.fleet import Fleet

_INTERVAL_S = 0.2
_BAR_WIDTH = 24


@contextmanager
def progress(fleet: Fleet, news: Callable[[], Iterable[str]] = tuple) -> Iterator[None]:
    """Show a line on standard error that changes as the fleet works, if that is a terminal.

    Args:
        fleet: whose progress.
        news: returns the lines since its last call, for standard output.
    """
    shown, ended = sys.stderr.isatty(), threading.Event()
    clear = "\r\x1b[K" if shown else ""

    def update() -> None:
        for line in news():
            sys.stderr.write(clear)
            sys.stderr.flush()
            print(line, flush=True)
        if shown:
            sys.stderr.write(clear if ended.is_set() else f"{clear}{progress_line(fleet)}")
            sys.stderr.flush()

    def update_until_ended() -> None:
        while not ended.wait(_INTERVAL_S):
            update()
        update()

    thread = threading.Thread(target=update_until_ended, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def progress_line(fleet: Fleet) -> str:
    """The progress of a fleet on one line."""
    state = fleet.state
    total, applied = state.total(), len(state.switches_completed())
    fault = f", {state.faults[-1].fault}" if state.faults else ""
    wrong = f", {total.wrong} wrong" if total.wrong else ""
    if fleet.options.num_windows:
        return f"{_replayed(fleet)}, {applied} switches{fault}{wrong}"
    return (
        f"step {max(total.step, 0)}, {total.tokens} tokens, {total.wrong} wrong, "
        f"{applied} switches{fault}"
    )


def _replayed(fleet: Fleet) -> str:
    """A bar, and how balanced the last window was."""
    windows, number = fleet.state.windows, fleet.options.num_windows
    bar = ("#" * (_BAR_WIDTH * windows.ended // number)).ljust(_BAR_WIDTH, ".")
    last = windows.complete[-1:]
    shown = "".join(f", imbalance {each.untouched:.2f} → {each.served:.2f}" for each in last)
    return f"[{bar}] {windows.ended}/{number} windows{shown}"
