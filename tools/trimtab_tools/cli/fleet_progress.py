"""What `trimtab simulate` shows while it runs."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trimtab_tools.simulate.fleet import Fleet

_TICK_S = 0.2
_WIDTH = 24


def _nothing() -> Iterable[str]:
    return ()


@contextmanager
def progress(fleet: Fleet, news: Callable[[], Iterable[str]] = _nothing) -> Iterator[None]:
    """A line on standard error, if somebody looks at it.

    Args:
        fleet: about which.
        news: lines that have come up since the last call, for standard output.
    """
    shown, ended = sys.stderr.isatty(), threading.Event()
    clear = "\r\x1b[K" if shown else ""

    def tell() -> None:
        for line in news():
            sys.stderr.write(clear)
            sys.stderr.flush()
            print(line, flush=True)
        if shown:
            sys.stderr.write(clear if ended.is_set() else f"{clear}{now(fleet)}")
            sys.stderr.flush()

    def go_on() -> None:
        while not ended.wait(_TICK_S):
            tell()
        tell()

    thread = threading.Thread(target=go_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def now(fleet: Fleet) -> str:
    """How far a fleet has come."""
    ledger = fleet.ledger
    total, applied = ledger.total(), sum(each.is_whole for each in list(ledger.switches.values()))
    struck = f", {ledger.faults[-1].fault}" if ledger.faults else ""
    wrong = f", {total.wrong} wrong" if total.wrong else ""
    if fleet.options.num_windows:
        return f"{_replayed(fleet)}, {applied} switches{struck}{wrong}"
    return (
        f"step {max(total.step, 0)}, {total.tokens} tokens, {total.wrong} wrong, "
        f"{applied} switches{struck}"
    )


def _replayed(fleet: Fleet) -> str:
    """A bar, and how balanced the last window was."""
    windows, number = fleet.ledger.windows, fleet.options.num_windows
    bar = ("#" * (_WIDTH * windows.ended // number)).ljust(_WIDTH, ".")
    last = windows.complete[-1:]
    shown = "".join(f", imbalance {each.untouched:.2f} → {each.served:.2f}" for each in last)
    return f"[{bar}] {windows.ended}/{number} windows{shown}"
