"""Faults as text, such as kill-rank:1@armed."""

from __future__ import annotations

import re
from dataclasses import dataclass

from trimtab_client.exceptions import invalid
from trimtab_tools.simulate.messages import Action, SwitchPoint

GRAMMAR = """\
faults:
  kill-server@WHEN[+SECONDS]      kill the server by SIGKILL; restart it SECONDS later (default 0)
  stop-server@WHEN+SECONDS        stop the server by SIGSTOP, so that it hangs for SECONDS
  kill-rank:RANK@WHEN             kill a rank by SIGKILL; another process takes its place
  stop-rank:RANK@WHEN+SECONDS     stop a rank by SIGSTOP, so that it hangs for SECONDS
  refuse:RANK@TIME                the rank refuses the next offer
  slow:RANK@TIME+SECONDS          the rank's next transfer takes SECONDS longer

  TIME is in seconds since all ranks serve, such as 2.5s. With a trace it may also be the number of
  a window, such as w20, for the time at which that window begins; the first one is w0. WHEN is a
  TIME, or a point in a switch, for the first time that the switch reaches it:
    of a rank: accepted (it is about to fill its staging), prepared (its staging is full, and the
      server does not know it yet), armed (it has the commit, and the group does not know it yet),
      flipping (all ranks may flip, and this one has not flipped yet)
    of the server, once its history has it: offered, prepared, committed, aborting, applied
"""

SERVER_POINTS = ("offered", "prepared", "committed", "aborting", "applied")

_WORDS = re.compile(
    r"(?P<action>[a-z-]+)(?::(?P<rank>\d+))?@(?P<when>[a-z]+|w\d+|[\d.]+s)(?:\+(?P<lasts>[\d.]+)s?)?"
)


_NEEDS_SECONDS = (Action.STOP_SERVER, Action.STOP_RANK, Action.SLOW)
_NEEDS_TIME = (Action.REFUSE, Action.SLOW)
_WITHOUT_SECONDS = (Action.KILL_RANK, Action.REFUSE)


@dataclass(frozen=True)
class Fault:
    """A fault that is to happen once.

    Attributes:
        words: its text on the command line.
        action: what happens.
        rank: the rank to which it happens; None if it happens to the server.
        at: when, in seconds since all ranks serve; None if it has a point or a window.
        point: in a switch; empty if it has a time or a window.
        lasts: how long, in seconds.
        window: the window with which it begins, from 0; None if it has a time or a point.
    """

    words: str
    action: Action
    rank: int | None
    at: float | None
    point: str
    lasts: float
    window: int | None = None


def parse_fault(words: str, ranks: int, windows: int = 0) -> Fault:
    """Parse a fault; see `GRAMMAR`.

    Args:
        words: such as "kill-rank:1@armed".
        ranks: number of ranks.
        windows: number of windows of the trace that are replayed; 0 without a trace.

    Raises:
        InvalidArgumentError: this is not a fault, or there is no such rank or window.
    """
    match = _WORDS.fullmatch(words)
    if match is None:
        raise _wrong(words, "is not ACTION[:RANK]@WHEN[+SECONDS]")
    action = _action(words, match["action"])
    rank = _rank(words, action, match["rank"], ranks)
    when, lasts = match["when"], _seconds(words, match["lasts"] or "0")
    at = _seconds(words, when.removesuffix("s")) if when[0] in ".0123456789" else None
    window = _window(words, when, windows) if when[1:].isdigit() and when[0] == "w" else None
    point = when if at is None and window is None else ""
    if point:
        _check_point(words, action, point)
    if action in _NEEDS_SECONDS and lasts == 0:
        raise _wrong(words, "does not say how long: append +SECONDS")
    if action in _WITHOUT_SECONDS and lasts:
        raise _wrong(words, "takes no +SECONDS")
    return Fault(words, action, rank, at, point, lasts, window)


def _action(words: str, name: str) -> Action:
    try:
        return Action(name)
    except ValueError as error:
        names = ", ".join(each.value for each in Action)
        raise _wrong(words, f"does not begin with one of {names}") from error


def _rank(words: str, action: Action, number: str | None, ranks: int) -> int | None:
    if not action.concerns_a_rank:
        if number is not None:
            raise _wrong(words, "names a rank, but is about the server")
        return None
    if number is None or int(number) >= ranks:
        raise _wrong(words, f"does not name a rank in [0, {ranks - 1}]")
    return int(number)


def _window(words: str, when: str, windows: int) -> int:
    number = int(when[1:])
    if not windows:
        raise _wrong(words, "names a window, but there is no trace")
    if number >= windows:
        raise _wrong(words, f"does not name a window in [0, {windows - 1}]")
    return number


def _check_point(words: str, action: Action, when: str) -> None:
    points = [each.value for each in SwitchPoint] if action.concerns_a_rank else list(SERVER_POINTS)
    if action in _NEEDS_TIME:
        raise _wrong(words, "needs a time, such as @2s")
    if when not in points:
        raise _wrong(words, f"is neither at a time, such as @2s, nor at one of {points}")


def _seconds(words: str, number: str) -> float:
    try:
        return float(number)
    except ValueError as error:
        raise _wrong(words, f"{number!r} is not a number of seconds") from error


def _wrong(words: str, why: str) -> Exception:
    return invalid("fault", f"{words!r} {why}")
