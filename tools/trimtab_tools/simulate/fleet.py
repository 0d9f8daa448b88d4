"""A fleet: a server and its ranks as processes, with switches and faults on demand."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar, get_args

from trimtab_client.client import Client
from trimtab_client.exceptions import TrimtabError, invalid
from trimtab_client.placement import Placement
from trimtab_client.results import TriggerResult
from trimtab_client.retry import check_timeout
from trimtab_protocol.version import Version
from trimtab_tools.simulate.errors import FleetError
from trimtab_tools.simulate.fault_injection import FaultInjector
from trimtab_tools.simulate.fleet_state import FleetState, RankStatus
from trimtab_tools.simulate.history_tail import HistoryTail, Line
from trimtab_tools.simulate.launch import launch
from trimtab_tools.simulate.operator_client import RETRY_S, OperatorClient
from trimtab_tools.simulate.options import FleetOptions
from trimtab_tools.simulate.rank_processes import RANK_COMMAND
from trimtab_tools.simulate.report import Report, make_report
from trimtab_tools.simulate.scenario import Balance
from trimtab_tools.simulate.server import ServerProcess

_T = TypeVar("_T")
_QUICK_REPORTS = ("--report-seconds", "0.1")
_LEAVE_S = 15.0
_PAUSE_REASON = "the simulation ends"


class Fleet:
    """A server and its ranks, each a process, from `with` to the end of the block.

        with Fleet(FleetOptions(ranks=4)) as fleet:
            fleet.switch_to(placement)
            fleet.faults.kill_rank(2)
            fleet.switch_to(another)
            report = fleet.finish()
        assert report.ok, report

    A rank that dies is replaced: the group forms anew, and goes on from where the others
    stand. Every wait has a timeout in seconds, by default the fleet's patience. It raises
    DeadlineExceededError, which says what was waited for, and FleetError if the fleet cannot go
    on. Methods may be called from any thread.

    Args:
        options: sizes of the fleet, and how it works.
        server: address of a server to use. If None, the fleet starts one with an empty store.
        history: file for the history, which must be empty or not exist; with `server`, the file
            to which that server writes. If None, the history of the fleet's own server is kept
            until the fleet ends, and with `server` there is no history.
        balance: whether the server decides by itself when experts move, from reports that come
            ten times a second: "active", or "shadow", where it only logs its decisions. If None,
            it only does what it is told. Without effect on a `server` that runs already.
        server_flags: flags of the server that is started, such as "--offer-seconds", "5".
        patience: the timeout of each method that is given no other, in seconds.
        rank_command: runs a rank's process; see `RankProcesses`.

    Attributes:
        state: what is known of the ranks, and what has happened.
        faults: causes faults; only inside the block.
        target: the placement that `switch_to` reached last.

    Raises:
        InvalidArgumentError: the history is not empty, the patience is not above 0, or there
            is no such `balance`.
        FleetError: the server cannot be started.
    """

    faults: FaultInjector

    def __init__(
        self,
        options: FleetOptions | None = None,
        *,
        server: str | None = None,
        history: Path | None = None,
        balance: Balance | None = None,
        server_flags: Sequence[str] = (),
        patience: float = 60.0,
        rank_command: Sequence[str] = RANK_COMMAND,
    ) -> None:
        self.options = options = FleetOptions() if options is None else options
        self.patience = check_timeout(patience)
        if server is None and history is not None and history.exists() and history.stat().st_size:
            raise invalid("history", f"{history} is not empty: name a new file")
        if balance is not None and balance not in get_args(Balance):
            raise invalid("balance", f"{balance!r} is not one of {list(get_args(Balance))}")
        self.balance = balance
        quick = () if balance is None else _QUICK_REPORTS
        flags = ("--balance", balance or "off", *quick, *server_flags)
        self.state = FleetState(options)
        self._launch = partial(
            launch,
            options,
            self.state,
            server=server,
            history=history,
            server_flags=flags,
            rank_command=rank_command,
            patience=patience,
        )
        self.target = options.untouched
        self._exit = ExitStack()

    def __enter__(self) -> Self:
        self._processes = running = self._exit.enter_context(self._launch())
        path, is_shared = running.history, running.server is None
        self._history = None if path is None else HistoryTail(path, only_new=is_shared)
        self._operator = OperatorClient(running.address, self.options.deployment, self.state)
        self.faults = FaultInjector(running, self.state)
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    @property
    def address(self) -> str:
        """The address of the server."""
        return self._processes.address

    @property
    def history(self) -> HistoryTail:
        """The history so far.

        Raises:
            InvalidArgumentError: there is none.
        """
        if self._history is None:
            raise invalid("history", "None: to read it, name the file to which the server writes")
        return self._history

    # The server.

    def own_server(self) -> ServerProcess:
        """See `FleetProcesses.own_server`."""
        return self._processes.own_server()

    def start_server(self, *flags: str, wait: bool = True) -> None:
        """Start the fleet's server again, on the same port and store, with further flags."""
        server = self.own_server()
        server.start(*flags)
        if wait:
            server.wait_ready(self.patience)

    # Switches.

    def trigger(
        self, placement: Placement | None = None, timeout: float | None = None
    ) -> TriggerResult:
        """Ask for a placement, again and again until the server offers it.

        If it is None, the server plans from what the ranks have counted. The error of a wait that
        takes too long has the server's last answer.
        """
        ask, seconds = partial(Client.trigger, placement=placement), self._timeout(timeout)
        return self._operator.until_done(ask, "a switch to be offered", seconds)

    def trigger_once(
        self, placement: Placement | None, timeout: float
    ) -> TriggerResult | TrimtabError:
        """Ask for a placement once; returns the error if the server cannot offer it now."""
        return self._operator.once(partial(Client.trigger, placement=placement), timeout)

    def switch_to(
        self, placement: Placement | None = None, timeout: float | None = None
    ) -> Placement:
        """Have all ranks serve by a placement; asks for it again after each abort.

        If it is None, the server plans. Returns the placement by which all ranks serve now.
        """
        begun = time.monotonic()
        self.target = self._reach(placement, self._timeout(timeout))
        self.state.target_seconds.append(time.monotonic() - begun)
        return self.target

    def _reach(self, placement: Placement | None, seconds: float) -> Placement:
        begun = time.monotonic()
        result = self.trigger(placement, seconds)
        answer: object = result
        target = result.target
        reached = partial(self.state.version_with, target.digest)
        while self.state.wait_or_none(reached, RETRY_S) is None:
            left = begun + seconds - time.monotonic()
            if left <= 0:
                what = f"all ranks to serve by {target.digest.hex()[:8]}"
                raise self._operator.late(seconds, what, answer)
            # Refused while a switch to the target is open, and without effect once it is done.
            answer = self.trigger_once(target, left)
        return target

    # Waiting.

    def wait(
        self, what: str, condition: Callable[[], _T | None], timeout: float | None = None
    ) -> _T:
        """Wait until a condition returns something other than None; returns that."""
        return self.state.wait(what, condition, self._timeout(timeout))

    def wait_in_force(
        self, timeout: float | None = None, *, after: Version | None = None
    ) -> Version:
        """Wait until all ranks serve by one version, of a later epoch than `after`; returns it."""
        epoch = 0 if after is None else after.epoch

        def found() -> Version | None:
            version = self.state.version_in_force()
            return None if version is None or version.epoch <= epoch else version

        later = f" after {epoch}" if epoch else ""
        return self.wait(f"all ranks to be in one epoch{later}", found, timeout)

    def wait_flipped(self, digest: bytes, timeout: float | None = None) -> Version:
        """Wait until all ranks serve by the placement of this digest; returns its version."""
        what = f"all ranks to serve by {digest.hex()[:8]}"
        return self.wait(what, partial(self.state.version_with, digest), timeout)

    def wait_for_lines(
        self, kind: str, *, count: int = 1, timeout: float | None = None, **values: Any
    ) -> list[Line]:
        """Wait until the history has `count` lines of a kind with these values; returns all."""

        def found() -> list[Line] | None:
            lines = self.history.lines(kind, **values)
            return lines if len(lines) >= count else None

        return self.wait(f"{count} of {kind!r} {values or ''} in the history", found, timeout)

    def _timeout(self, timeout: float | None) -> float:
        return self.patience if timeout is None else timeout

    # The end.

    def finish(self, timeout: float | None = None, *, trouble: str = "") -> Report:
        """Come to rest, end all ranks and the server, and judge what has happened.

        At rest all ranks serve by the last target, or, if the server balances by itself, by
        one placement; and no switch is open. If `trouble` says what has gone wrong already, the
        fleet does not wait for rest.
        """
        server = self._processes.server
        trouble = trouble or self._come_to_rest(self._timeout(timeout))
        self._processes.supervisor.end()
        if not self._have_left() and not trouble:
            trouble = f"not all ranks have left: {self.state.summary()}"
        if server is None and self.balance is not None and not trouble:
            trouble = self._resume()
        if server is not None and not server.terminate(_LEAVE_S) and not trouble:
            trouble = "the server cannot be killed"
        alarms = [] if server is None else server.alarms
        return make_report(self.state, self.options, self._history, alarms, trouble)

    def _come_to_rest(self, seconds: float) -> str:
        try:
            self.wait_in_force(seconds)
            if self.balance is not None:
                # Else the server could offer one more switch, which would never end.
                pause = partial(Client.pause, reason=_PAUSE_REASON)
                self._operator.until_done(pause, "the deployment to be paused", seconds)
                self.wait("the last switch to end", self._is_quiet, seconds)
                return ""
            self._reach(self.target, seconds)
            # The server may not know yet that the last rank has flipped.
            self.trigger(self.target, seconds)
        except TrimtabError as error:
            return str(error)
        return ""

    def _resume(self) -> str:
        """Leave a server that the fleet has not started as it was."""
        try:
            with Client(self.address) as client:
                client.resume(self.options.deployment)
        except TrimtabError as error:
            return f"the deployment is left paused: {error}"
        return ""

    def _is_quiet(self) -> bool | None:
        switching = [] if self._history is None else self._history.open_switches()
        return True if self.state.version_in_force() is not None and not switching else None

    def _have_left(self) -> bool:
        def gone() -> bool | None:
            return all(each.status is RankStatus.GONE for each in self.state.ranks) or None

        try:
            return self.state.wait_or_none(gone, _LEAVE_S) is not None
        except FleetError:
            return False
