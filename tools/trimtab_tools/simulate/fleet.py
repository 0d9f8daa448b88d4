"""A fleet: a server, its ranks, switches to trigger, and faults to strike."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self, get_args

from trimtab_client.client import Client
from trimtab_client.exceptions import (
    DeadlineExceededError,
    FailedPreconditionError,
    NotFoundError,
    TrimtabError,
    UnavailableError,
    invalid,
)
from trimtab_client.placement import Placement
from trimtab_client.results import TriggerResult
from trimtab_client.retry import RetryPolicy, check_timeout
from trimtab_tools.history import check_history, read_history
from trimtab_tools.simulate.rank_processes import RANK
from trimtab_tools.simulate.errors import FleetError
from trimtab_tools.simulate.fleet_state import FleetState, Status
from trimtab_tools.simulate.history_tail import HistoryTail, open_switches
from trimtab_tools.simulate.options import FleetOptions
from trimtab_tools.simulate.report import Ended, Report, make_report
from trimtab_tools.simulate.launch import Plan, running
from trimtab_tools.simulate.scenario import Balance
from trimtab_tools.simulate.fault_injection import Strikes
from trimtab_tools.simulate.waits import Waits

_QUICK_REPORTS = ("--report-seconds", "0.1")
_ENDS = "the simulation ends"
_ONCE = RetryPolicy(max_attempts=1)
_NOT_NOW = (DeadlineExceededError, FailedPreconditionError, NotFoundError, UnavailableError)
"""Also a deployment that is not there: it is made by the first rank that comes."""
_ASK_AGAIN_S = 0.1
_LEAVES_S = 15.0


class Fleet(Waits, Strikes):
    """A server and its ranks, each a process, from `with` to the end of the block.

        with Fleet(FleetOptions(ranks=4)) as fleet:
            fleet.switch_to(placement)
            fleet.kill_rank(2)
            fleet.switch_to(another)
            report = fleet.finish()
        assert report.ok, report

    A rank that dies is replaced: the group forms anew, and goes on from where the others
    stand. Whatever waits has a deadline, and then says what it has waited for. Methods may
    be called from any thread.

    Args:
        options: sizes, and how the fleet works.
        server: address of a server to use; None: one is started, with a store of its own.
        history: where the history goes: a file that is not there yet, or is empty; with
            `server`, the one into which that writes. None: one of the fleet's own server is
            kept until the fleet ends, and with `server` there is none.
        balance: the server decides by itself whether experts move, from reports that come ten
            times a second: "active", or "shadow", where it only says so. None: it does what it
            is told. With `server` this is up to that one.
        server_flags: of the server that is started, such as "--offer-seconds", "5".
        patience: longest wait of a method that is given no other, in seconds.
        rank_command: runs a rank's process; see `RankProcesses`.

    Attributes:
        balance: the same.
        ledger: what is known of the ranks, and what has happened.
        target: the placement that all have come to serve by last.

    Raises:
        InvalidArgumentError: the history has something in it, the patience is not above 0, or
            there is no such `balance`.
        FleetError: there is no server, and none can be started.
    """

    def __init__(
        self,
        options: FleetOptions | None = None,
        *,
        server: str | None = None,
        history: Path | None = None,
        balance: Balance | None = None,
        server_flags: Sequence[str] = (),
        patience: float = 60.0,
        rank_command: Sequence[str] = RANK,
    ) -> None:
        self.options = FleetOptions() if options is None else options
        self.patience = check_timeout(patience)
        if server is None and history is not None and history.exists() and history.stat().st_size:
            raise invalid("history", f"{history} is not empty: name a new file")
        if balance is not None and balance not in get_args(Balance):
            raise invalid("balance", f"{balance!r} is not one of {list(get_args(Balance))}")
        self.balance = balance
        quick = () if balance is None else _QUICK_REPORTS
        server_flags = ("--balance", balance or "off", *quick, *server_flags)
        self._plan = Plan(self.options, server, history, server_flags, rank_command, patience)
        self.ledger = FleetState(self.options)
        self.target = self.options.untouched
        self._began = time.monotonic()
        self._target_seconds: list[float] = []
        self._exit = ExitStack()

    def __enter__(self) -> Self:
        self._running = self._exit.enter_context(running(self._plan, self.ledger))
        history = self._running.history
        self._noted = None if history is None else HistoryTail(history)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._exit.close()

    @property
    def address(self) -> str:
        """Where the server is."""
        return self._plan.server or self.own_server().address

    # Switches.

    def trigger(
        self, placement: Placement | None = None, timeout: float | None = None
    ) -> TriggerResult:
        """Ask for a placement, again and again until it can be offered.

        Args:
            placement: where to go; None: as the server plans from what ranks have counted.
            timeout: in seconds; None: the fleet's patience.

        Raises:
            FleetError: the fleet cannot go on.
            DeadlineExceededError: it could not be in time. Says what the server has answered.
        """
        seconds = self.patience if timeout is None else timeout
        end = time.monotonic() + seconds
        while True:
            answer = self.ask(placement, max(_ASK_AGAIN_S, end - time.monotonic()))
            if isinstance(answer, TriggerResult):
                return answer
            if time.monotonic() > end:
                raise self._late(seconds, "a switch to be offered", answer)
            self.ledger.wait_for(lambda: None, _ASK_AGAIN_S)

    def switch_to(
        self, placement: Placement | None = None, timeout: float | None = None
    ) -> Placement:
        """Have all ranks serve by a placement, and ask for it again after each abort.

        Args:
            placement: as `trigger` has it.
            timeout: in seconds; None: the fleet's patience.

        Returns:
            What all serve by now.

        Raises:
            FleetError: the fleet cannot go on.
            DeadlineExceededError: they did not in time.
        """
        begun = time.monotonic()
        self.target = self._reach(placement, self.patience if timeout is None else timeout)
        self._target_seconds.append(time.monotonic() - begun)
        return self.target

    def _reach(self, placement: Placement | None, seconds: float) -> Placement:
        begun = time.monotonic()
        answer: object = self.trigger(placement, seconds)
        target = answer.target if isinstance(answer, TriggerResult) else self.target
        reached = partial(self._all_at, target.digest)
        while self.ledger.wait_for(reached, _ASK_AGAIN_S) is None:
            left = begun + seconds - time.monotonic()
            if left <= 0:
                what = f"all ranks to serve by {target.digest.hex()[:8]}"
                raise self._late(seconds, what, answer)
            # Refused while a switch to it is under way, and without effect where it is done.
            answer = self.ask(target, left)
        return target

    def ask(self, placement: Placement | None, timeout: float) -> TriggerResult | TrimtabError:
        """Trigger once: what the server says, or why it cannot be now."""
        # A channel of its own: an old one may take seconds to find a server that is back.
        with Client(self.address, retry=_ONCE) as client:
            try:
                return client.trigger(self.options.deployment, placement=placement, timeout=timeout)
            except _NOT_NOW as error:
                return error

    def _late(self, seconds: float, what: str, answer: object) -> DeadlineExceededError:
        shown = f"{self.ledger.shown()}; the server: {answer}"
        return DeadlineExceededError(f"waited {seconds:g} s for {what}: {shown}")

    # The end.

    def finish(self, timeout: float | None = None, *, trouble: str = "") -> Report:
        """Come to rest, end all ranks and the server, and judge what has happened.

        At rest all ranks serve by the last target, or, where the server balances by itself, by
        one placement; and the server has no switch open.

        Args:
            timeout: longest wait for that, in seconds; None: the fleet's patience.
            trouble: why there is no use in waiting: what has gone wrong already.
        """
        server, history = self._running.server, self._running.history
        trouble = trouble or self._come_to_rest(self.patience if timeout is None else timeout)
        self._running.hub.post(self._running.supervisor.end)
        if not self._have_left() and not trouble:
            trouble = f"not all ranks have left: {self.ledger.shown()}"
        if server is None and self.balance is not None and not trouble:
            trouble = self._resume()
        if server is not None:
            server.stop(_LEAVES_S)
        verdict = None
        if history is not None and history.exists():
            with history.open("rb") as lines:
                verdict = check_history(read_history(lines), complete=not trouble)
        alarms = [] if server is None else server.alarms
        return make_report(
            self.ledger,
            self.options,
            Ended(self._began, time.monotonic(), trouble, tuple(alarms)),
            self._target_seconds,
            [] if self._noted is None else self._noted.lines("decided"),
            verdict,
        )

    def _come_to_rest(self, seconds: float) -> str:
        try:
            self.wait_in_force(seconds)
            if self.balance is not None:
                self._pause(seconds)
                self.wait("the last switch to end", self._is_quiet, seconds)
                return ""
            self._reach(self.target, seconds)
            # It may have yet to hear that the last rank has flipped.
            self.trigger(self.target, seconds)
        except TrimtabError as error:
            return str(error)
        return ""

    def _pause(self, seconds: float) -> None:
        """Have the server decide nothing any more: what it offered last would never end."""
        end = time.monotonic() + seconds
        while (
            refusal := self._try_to_pause(max(_ASK_AGAIN_S, end - time.monotonic()))
        ) is not None:
            if time.monotonic() > end:
                raise self._late(seconds, "the deployment to be paused", refusal)
            self.ledger.wait_for(lambda: None, _ASK_AGAIN_S)

    def _try_to_pause(self, timeout: float) -> TrimtabError | None:
        with Client(self.address, retry=_ONCE) as client:
            try:
                client.pause(self.options.deployment, _ENDS, timeout=timeout)
            except _NOT_NOW as error:
                return error
        return None

    def _resume(self) -> str:
        """Leave the server of somebody else as it was."""
        try:
            with Client(self.address) as client:
                client.resume(self.options.deployment)
        except TrimtabError as error:
            return f"the deployment is left paused: {error}"
        return ""

    def _is_quiet(self) -> bool | None:
        switching = [] if self._noted is None else open_switches(self._noted)
        return True if self._in_force() is not None and not switching else None

    def _have_left(self) -> bool:
        try:
            return self.ledger.wait_for(self._all_gone, _LEAVES_S) is not None
        except FleetError:
            return False

    def _all_gone(self) -> bool | None:
        return all(each.status is Status.GONE for each in self.ledger.ranks) or None
