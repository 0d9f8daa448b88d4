"""What a session makes of what the server says."""

from __future__ import annotations

import logging
from collections.abc import Callable

from trimtab_client.exceptions import ProtocolError
from trimtab_client.worker.carrying import Carrier
from trimtab_client.worker.counters import Counters
from trimtab_client.worker.effects import Order, Send
from trimtab_client.worker.link import Link
from trimtab_client.worker.options import WorkerOptions
from trimtab_client.worker.proposal import Room, check_offer
from trimtab_client.worker.shared import Shared
from trimtab_protocol.errors import MalformedError
from trimtab_protocol.messages import (
    Abort,
    Commit,
    Directive,
    Drain,
    Offer,
    Refused,
    ReportAck,
    ServerMessage,
    UnreadableOffer,
    Welcome,
)
from trimtab_protocol.wire.responses import Response, decode_response

logger = logging.getLogger(__package__)


class Hearing:
    """Used by the loop alone.

    Args:
        options: what the worker has room for.
        shared: the state machine, which gets the server's orders.
        counters: which hear that they have been heard.
        carrier: carries out what the machine asks for.
        clock: seconds, rising.
    """

    def __init__(
        self,
        options: WorkerOptions,
        shared: Shared,
        counters: Counters,
        carrier: Carrier,
        clock: Callable[[], float],
    ) -> None:
        self._options = options
        self._shared = shared
        self._counters = counters
        self._carrier = carrier
        self._clock = clock
        self._lower_term: int | None = None

    def heard(self, link: Link, response: Response) -> None:
        """The server has said something on the newest stream, which is open."""
        with self._shared.lock:
            heard = self._shared.switch.heard(response.term)
        if not heard:
            self._ignore(response.term)
            return
        self._lower_term = None
        if not link.greeted:
            link.greet()
            logger.info("session %d: connected", link.stream)
            self._carrier.tell("connected", stream=link.stream)
        try:
            said = decode_response(response)
        except MalformedError as error:
            self._carrier.complain(str(error))
            return
        self._heed(link, said)

    def _ignore(self, term: int) -> None:
        """Say once for each server that nothing of what it says is heeded, and why."""
        if term == self._lower_term:
            return
        self._lower_term = term
        self._carrier.complain(
            f"a server of term {term}, since one of term {self._shared.switch.term} has been "
            "heard: another server has followed it"
        )

    def _heed(self, link: Link, said: ServerMessage) -> None:
        match said:
            case Directive():
                link.reports.directed(said, self._clock())
            case ReportAck():
                link.reports.acknowledged(said.seq)
                self._counters.acknowledged(said.seq)
            case Drain():
                logger.info("the server ends in %.1f s", said.seconds)
                link.drained = True
                link.leave_at = min(link.leave_at, self._clock() + said.seconds)
            case UnreadableOffer():
                self._refuse(link, Refused(*said))
            case Offer():
                self._offered(link, said)
            case Welcome() | Commit() | Abort():
                self._order(link, said)

    def _offered(self, link: Link, proposal: Offer) -> None:
        switch = self._shared.switch
        if switch.in_force is not None and proposal.version <= switch.in_force:
            return  # late, and its base may be gone
        limits = self._options.staging_slots, self._options.max_layers_per_switch
        try:
            offer = check_offer(proposal, switch.placement, Room(switch.gpus, *limits))
        except ProtocolError as error:
            self._refuse(link, Refused(proposal.version, proposal.digest, str(error)))
        else:
            self._order(link, offer)

    def _order(self, link: Link, order: Order) -> None:
        switch = self._shared.switch
        with self._shared.lock:
            effects = switch.ordered(link.stream, switch.term, order)
        self._carrier.perform(link, effects)

    def _refuse(self, link: Link, refused: Refused) -> None:
        """Refuse what the state machine cannot even be told."""
        self._carrier.perform(link, [Send(refused)])
