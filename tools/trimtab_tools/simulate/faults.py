"""Faults in words, such as kill-rank:1@armed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from trimtab_client.exceptions import invalid
from trimtab_tools.simulate.messages import SwitchPoint

GRAMMAR = """\
faults:
  kill-server@WHEN[+SECONDS]      kill -9 of the server, and SECONDS later (default 0) its restart
  stop-server@WHEN+SECONDS        it hangs (SIGSTOP) for SECONDS
  kill-rank:RANK@WHEN             kill -9 of a rank; another process takes its place
  stop-rank:RANK@WHEN+SECONDS     it hangs (SIGSTOP) for SECONDS
  refuse:RANK@TIME                it refuses the next offer
  slow:RANK@TIME+SECONDS          its next transfer takes SECONDS longer

  TIME is in seconds since all ranks serve, such as 2.5s; or, with a trace, w and the number of one
  of the windows that are replayed, such as w20: when that begins, and w0 is the first. WHEN is a
  TIME, or a point in a switch, which strikes the first time that it is reached:
    of a rank: accepted (about to fill its staging), prepared (all is there, and the server does
      not know it yet), armed (it has the commit, the group does not know it yet), flipping (all
      others flip, it does not yet)
    of the server, once its history has it: offered, prepared, committed, aborting, applied
"""

SERVER_POINTS = ("offered", "prepared", "committed", "aborting", "applied")

_WORDS = re.compile(
    r"(?P<action>[a-z-]+)(?::(?P<rank>\d+))?@(?P<when>[a-z]+|w\d+|[\d.]+s)(?:\+(?P<lasts>[\d.]+)s?)?"
)


class Action(Enum):
    """What happens."""

    KILL_SERVER = "kill-server"
    STOP_SERVER = "stop-server"
    KILL_RANK = "kill-rank"
    STOP_RANK = "stop-rank"
    REFUSE = "refuse"
    SLOW = "slow"

    @property
    def is_of_a_rank(self) -> bool:
        """Whether it happens to a rank, and not to the server."""
        return self not in (Action.KILL_SERVER, Action.STOP_SERVER)


_LASTING = (Action.STOP_SERVER, Action.STOP_RANK, Action.SLOW)
_TIMED = (Action.REFUSE, Action.SLOW)
_ENDLESS = (Action.KILL_RANK, Action.REFUSE)


@dataclass(frozen=True)
class Fault:
    """Something that shall go wrong once.

    Attributes:
        words: as it was asked for.
        action: what happens.
        rank: to whom; None: the server.
        at: when, in seconds since all ranks serve; None: at a point, or in a window.
        point: of the switch; empty where it has a time.
        lasts: seconds.
        window: with the beginning of which one, from 0; None: it has a time or a point.
    """

    words: str
    action: Action
    rank: int | None
    at: float | None
    point: str
    lasts: float
    window: int | None = None


def parse_fault(words: str, ranks: int, windows: int = 0) -> Fault:
    """A fault from its words; see `GRAMMAR`.

    Args:
        words: such as "kill-rank:1@armed".
        ranks: how many there are.
        windows: of a trace, how many are replayed; 0: there is none.

    Raises:
        InvalidArgumentError: that is none, or there is no such rank or window.
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
    if action in _LASTING and lasts == 0:
        raise _wrong(words, "does not say how long: append +SECONDS")
    if action in _ENDLESS and lasts:
        raise _wrong(words, "takes no +SECONDS")
    return Fault(words, action, rank, at, point, lasts, window)


def _action(words: str, name: str) -> Action:
    try:
        return Action(name)
    except ValueError as error:
        names = ", ".join(each.value for each in Action)
        raise _wrong(words, f"begins with none of {names}") from error


def _rank(words: str, action: Action, number: str | None, ranks: int) -> int | None:
    if not action.is_of_a_rank:
        if number is not None:
            raise _wrong(words, "names a rank, and is about the server")
        return None
    if number is None or int(number) >= ranks:
        raise _wrong(words, f"names no rank in [0, {ranks - 1}]")
    return int(number)


def _window(words: str, when: str, windows: int) -> int:
    number = int(when[1:])
    if not windows:
        raise _wrong(words, "names a window, and there is no trace")
    if number >= windows:
        raise _wrong(words, f"names no window in [0, {windows - 1}]")
    return number


def _check_point(words: str, action: Action, when: str) -> None:
    points = [each.value for each in SwitchPoint] if action.is_of_a_rank else list(SERVER_POINTS)
    if action in _TIMED:
        raise _wrong(words, "needs a time, such as @2s")
    if when not in points:
        raise _wrong(words, f"is neither at a time, such as @2s, nor at one of {points}")


def _seconds(words: str, number: str) -> float:
    try:
        return float(number)
    except ValueError as error:
        raise _wrong(words, f"{number!r} is no number of seconds") from error


def _wrong(words: str, why: str) -> Exception:
    return invalid("fault", f"{words!r} {why}")
