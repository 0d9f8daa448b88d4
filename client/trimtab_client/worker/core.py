"""A session without its I/O: what both kinds share, and where threads meet.

Two parties use it. The *engine's thread* takes steps: it contributes to the barrier, hears
what to flip to, and waits for nothing but a lock around the state machine. The *loop* (the
thread or task that owns the stream) does the rest, one thing after another: the engine, the
stream's reader and ended transfers hand it what is to be done (`post`), so that answers leave
in order and callbacks never overlap. Only the start of a collective transfer is called on the
engine's thread, since that is where all ranks are at the same step.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from grpc import StatusCode

from trimtab_client.exceptions import ProtocolError, TrimtabError, invalid
from trimtab_client.placement import Placement
from trimtab_client.worker import wire
from trimtab_client.worker.backoff import Backoff
from trimtab_client.worker.counters import Counters
from trimtab_client.worker.effects import Complain, Discard, Effect, Note, Prepare, Send
from trimtab_client.worker.effects import Flip as FlipEffect
from trimtab_client.worker.events import StateEvent
from trimtab_client.worker.link import Link, Mark, Outbox
from trimtab_client.worker.messages import Abort, Commit, Order, Refused, Version, Welcome
from trimtab_client.worker.notices import Directive, Drain, ReportAck, UnreadableOffer
from trimtab_client.worker.offer import Flip, SwitchOffer
from trimtab_client.worker.options import Transfer, WorkerOptions, check_gpus, check_placement
from trimtab_client.worker.proposal import Proposal, Room
from trimtab_client.worker.switch import WorkerSwitch

logger = logging.getLogger("trimtab_client.worker")

Task = Callable[[], object]

_SAYS_WHY = {StatusCode.ABORTED, StatusCode.FAILED_PRECONDITION, StatusCode.INVALID_ARGUMENT}


@dataclass(frozen=True)
class Callbacks:
    """What the engine does for a session; see `WorkerSession`."""

    on_offer: Callable[[SwitchOffer], Any]
    on_abort: Callable[[SwitchOffer], object]
    on_state: Callable[[StateEvent], object] | None


class SessionCore:
    """The state of a session.

    Args:
        options: who the worker is.
        callbacks: what the engine does.
        post: has the loop run a task, soon; callable from any thread.
        backoff: how long to wait before connecting again.
        clock: seconds, rising.
    """

    def __init__(
        self,
        options: WorkerOptions,
        callbacks: Callbacks,
        post: Callable[[Task], object],
        backoff: Backoff,
        clock: Callable[[], float],
    ) -> None:
        self._options = options
        self._callbacks = callbacks
        self._post = post
        self._backoff = backoff
        self._clock = clock
        self.counters = Counters(options.placement, options.gpus)
        # Guards the state machine, and the number of the stream that its answers are for. What
        # the engine's thread brings about is posted under it: so no Hello that says that
        # nothing is held gets ahead of the call that frees it.
        self._lock = threading.Lock()
        self._switch = WorkerSwitch(
            group_id=options.group_id,
            worker=options.worker,
            incarnation=options.incarnation,
            gpus=options.gpus,
            placement=options.placement,
            collective=options.transfer is Transfer.COLLECTIVE,
        )
        self._gpus = options.gpus
        self._stream: int | None = None
        # The engine's.
        self._step = -1
        self._flip: Flip | None = None
        # The loop's.
        self._link: Link | None = None
        self._streams = 0
        self._term = 0
        self._connect_at = -math.inf
        self._leave_at = math.inf
        self._told = ""
        self.closing = False

    # What anyone may ask.

    @property
    def in_force(self) -> Version | None:
        """The version that the worker serves by."""
        return self._switch.in_force

    @property
    def placement(self) -> Placement:
        """What the worker serves by."""
        return self._switch.placement

    @property
    def connected(self) -> bool:
        """Whether the server has answered on the present stream."""
        link = self._link
        return link is not None and link.is_open and link.greeted

    # The engine's thread.

    def begin_step(self, step: int) -> None:
        """Check that the engine is where it may take a step.

        Raises:
            InvalidArgumentError: a flip has not been applied, or steps run backwards.
        """
        if self._flip is not None:
            rule = f"apply the flip to {self._flip.version} first, and call `applied`"
            raise invalid("step", f"{step} cannot begin: {rule}")
        if step <= self._step:
            raise invalid("step", f"{step} does not come after {self._step}")
        self._step = step

    def contribute(self) -> tuple[int, int]:
        """What this rank brings to the barrier."""
        with self._lock:
            return self._switch.contribute()

    def agreed(self, accepted: int, armed: int) -> Flip | None:
        """The barrier's result; what to flip to, if all can."""
        with self._lock:
            effects = self._switch.agreed(accepted, armed)
            if effects and not isinstance(effects[0], FlipEffect | Prepare):
                self._post(partial(self._perform, self._stream, effects))
                return None
        for effect in effects:
            match effect:
                case FlipEffect(offer=SwitchOffer() as offer):
                    self._flip = Flip(offer, self._step)
                case Prepare(offer=SwitchOffer() as offer):
                    self._prepare(offer)
        return self._flip

    def applied(self) -> None:
        """The flip is done.

        Raises:
            InvalidArgumentError: there is none to be done.
        """
        flip = self._flip
        if flip is None:
            raise invalid("applied", "there is no flip to apply: `at_step_boundary` returns them")
        self.counters.flipped(flip.placement, self._gpus, flip.step)
        with self._lock:
            effects = self._switch.flipped(flip.step)
            self._post(partial(self._perform, self._stream, effects))
        self._flip = None

    def regroup(self, group_id: str, placement: Placement, gpus: tuple[int, ...] | None) -> None:
        """The engine has formed a new group.

        Raises:
            InvalidArgumentError: an argument is wrong, or a flip has not been applied.
        """
        if self._flip is not None:
            raise invalid("regroup", f"apply the flip to {self._flip.version} first")
        if not isinstance(group_id, str) or group_id in ("", self._switch.group_id):
            raise invalid("group_id", f"{group_id!r} is not the name of a new group")
        check_placement(placement, self._options.topology)
        owned = self._gpus if gpus is None else check_gpus(gpus, self._options.topology)
        self.counters.regrouped(placement, owned)
        with self._lock:
            effects = self._switch.regroup(group_id, placement)
            self._gpus, self._stream = owned, None
            self._post(partial(self._perform, None, effects))
            self._post(self._leave_old_group)
        self._step = -1

    # The loop: streams.

    def run(self, task: Task) -> None:
        """Run a task. Whatever goes wrong stays here: the engine serves on."""
        try:
            task()
        except Exception:
            logger.exception("the session failed at %r, and goes on", task)

    def connect(self, outbox: Outbox) -> Link:
        """Begin a stream; its outbox has the Hello."""
        self._streams += 1
        with self._lock:
            hello = replace(self._switch.connected(self._streams), gpus=self._gpus)
            self._stream = self._streams
        link = Link(self._streams, hello.group_id, outbox, self._clock())
        outbox.put_nowait(wire.hello_request(hello, self._options))
        self._link, self._leave_at = link, math.inf
        return link

    def report(self, link: Link) -> wire.Request:
        """The counts as they are now: the stream's writer asks for them as it sends."""
        snapshot = self.counters.snapshot()
        self._post(lambda: link.reports.sent(snapshot.seq, self._clock()))
        return wire.report_request(snapshot)

    def ended(self, link: Link, error: TrimtabError | None) -> None:
        """A stream has ended."""
        if link is not self._link or not link.is_open:
            return
        link.is_open = False
        with self._lock:
            self._switch.disconnected(link.stream)
            if self._stream == link.stream:
                self._stream = None
        now = self._clock()
        delay = self._backoff.ended(error, now - link.opened_at, drained=link.drained)
        self._connect_at = now + delay
        if not self.closing:
            self._tell_end(link, error, delay)

    def pause(self) -> float:
        """Seconds until the next stream may begin, 0 or less where it may now."""
        return -math.inf if self.closing else self._connect_at - self._clock()

    def timeout(self) -> float | None:
        """Seconds until `tick` has something to do; None: not before a task comes."""
        link = self._link
        due = self._leave_at if link is None else min(self._leave_at, link.reports.due_at())
        return None if math.isinf(due) else max(0.0, due - self._clock())

    def tick(self) -> None:
        """Do what is due."""
        link, now = self._link, self._clock()
        if link is None or not link.is_open:
            return
        if now >= self._leave_at:
            self.ended(link, None)
        elif now >= link.reports.due_at():
            link.reports.queued()
            link.outbox.put_nowait(Mark.REPORT)

    def close(self, reason: str, patience: float) -> None:
        """End: say so, where there is a server to say it to, and wait for it so long."""
        self.closing = True
        link = self._link
        if link is None or not link.is_open:
            return
        if not link.greeted:
            link.is_open = False
            return
        link.outbox.put_nowait(wire.goodbye_request(reason))
        link.outbox.put_nowait(Mark.END)
        self._leave_at = self._clock() + patience

    def _leave_old_group(self) -> None:
        self._backoff.reset()
        self._connect_at = -math.inf
        link = self._link
        if link is not None and link.group_id != self._switch.group_id:
            link.is_open = False

    def _tell_end(self, link: Link, error: TrimtabError | None, delay: float) -> None:
        reason = "the server ended the stream" if error is None else _reason(error)
        # What goes on is said once; gRPC words the absence of one server in several ways.
        trouble = reason if error is None or error.code in _SAYS_WHY else error.code.name
        level = logging.DEBUG if trouble == self._told else logging.WARNING
        self._told = trouble
        logger.log(level, "no session: %s; connecting again in %.1f s", reason, delay)
        self._tell("disconnected", stream=link.stream, reason=reason, retry_in=delay)

    # The loop: what the server says.

    def received(self, link: Link, response: wire.Response) -> None:
        """The server has said something."""
        if link is not self._link or not link.is_open:
            return
        if response.term < self._term:
            self._complain(f"a message of term {response.term}, after term {self._term}")
            return
        self._term = response.term
        if not link.greeted:
            link.greeted, self._told = True, ""
            logger.info("session %d: connected", link.stream)
            self._tell("connected", stream=link.stream)
        try:
            said = wire.said(response)
        except ProtocolError as error:
            self._complain(str(error))
            return
        self._heed(link, said)

    def _heed(self, link: Link, said: wire.Said) -> None:
        match said:
            case Directive():
                link.reports.directed(said, self._clock())
            case ReportAck():
                link.reports.acknowledged(said.seq)
            case Drain():
                logger.info("the server ends in %.1f s", said.seconds)
                link.drained = True
                self._leave_at = min(self._leave_at, self._clock() + said.seconds)
            case UnreadableOffer():
                self._refuse(link, Refused(*said))
            case Proposal():
                self._offered(link, said)
            case Welcome() | Commit() | Abort():
                self._order(link, said)

    def _offered(self, link: Link, proposal: Proposal) -> None:
        in_force = self._switch.in_force
        if in_force is not None and proposal.version <= in_force:
            return  # late, and its base may be gone
        limits = self._options.staging_slots, self._options.max_layers_per_switch
        try:
            offer = proposal.on(self._switch.placement, Room(self._gpus, *limits))
        except ProtocolError as error:
            self._refuse(link, Refused(proposal.version, proposal.digest, str(error)))
        else:
            self._order(link, offer)

    def _order(self, link: Link, order: Order) -> None:
        with self._lock:
            effects = self._switch.ordered(link.stream, self._term, order)
        self._perform(link.stream, effects)

    def _refuse(self, link: Link, refused: Refused) -> None:
        """Refuse what the state machine cannot even be told."""
        self._perform(link.stream, [Send(refused)])

    # The loop: what is to be done.

    def _perform(self, stream: int | None, effects: list[Effect]) -> None:
        """Carry out effects, in order. Answers are for `stream`, and lost if it is."""
        for effect in effects:
            match effect:
                case Send(answer):
                    self._send(stream, answer)
                case Prepare(offer=SwitchOffer() as offer):
                    self._prepare(offer)
                case Discard(offer=SwitchOffer() as offer):
                    self._discard(offer)
                case Complain(reason):
                    self._complain(reason)
                case Note(kind, values):
                    logger.info("%s: %s", kind, values.get("version"))
                    self._tell(kind, **values)

    def _send(self, stream: int | None, answer: Any) -> None:
        if isinstance(answer, Refused):
            logger.warning("refused %s: %s", answer.version, answer.reason)
        link = self._link
        if link is not None and link.is_open and link.stream == stream:
            link.outbox.put_nowait(wire.answer_request(answer))

    def _prepare(self, offer: SwitchOffer) -> None:
        """Have the engine begin; on the engine's thread for a collective transfer."""
        logger.info("preparing %s: %d layers", offer.version, len(offer.layers))
        try:
            begun = self._callbacks.on_offer(offer)
        except Exception as error:
            logger.exception("on_offer failed for %s", offer.version)
            self._end_transfer(offer, f"on_offer failed: {error!r}")
            return
        if hasattr(begun, "add_done_callback"):
            begun.add_done_callback(lambda future: self._end_transfer(offer, _failure_of(future)))
        else:
            self._end_transfer(offer, _failure(begun))

    def _end_transfer(self, offer: SwitchOffer, failure: str | None) -> None:
        """Called on whatever thread the transfer has ended."""
        self._post(partial(self._transferred, offer, failure))

    def _transferred(self, offer: SwitchOffer, failure: str | None) -> None:
        with self._lock:
            effects, stream = self._switch.prepared(offer.version, failure), self._stream
        self._perform(stream, effects)

    def _discard(self, offer: SwitchOffer) -> None:
        logger.info("discarding %s", offer.version)
        try:
            self._callbacks.on_abort(offer)
        except Exception:
            logger.exception("on_abort failed for %s", offer.version)

    def _complain(self, reason: str) -> None:
        logger.warning("ignored: %s", reason)
        self._tell("complaint", reason=reason)

    def _tell(self, kind: str, **values: Any) -> None:
        if self._callbacks.on_state is None:
            return
        try:
            self._callbacks.on_state(StateEvent(kind, values))
        except Exception:
            logger.exception("on_state failed at %r", kind)


def _failure_of(future: Any) -> str | None:
    """Why a transfer has failed; None: it has not."""
    if future.cancelled():
        return "the transfer was cancelled"
    error = future.exception()
    return _failure(future.result()) if error is None else f"the transfer failed: {error!r}"


def _failure(result: object) -> str | None:
    if result is None or result is True:
        return None
    if result is False:
        return "the engine declined"
    return f"on_offer gave {result!r}, which is none of Future, True, False and None"


def _reason(error: TrimtabError) -> str:
    return f"{error.code.name}: {error.details}"
