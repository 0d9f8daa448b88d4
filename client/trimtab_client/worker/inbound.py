"""Handles the messages of the server."""

from __future__ import annotations

import logging

from trimtab_client.exceptions import ProtocolError
from trimtab_client.worker.context import SessionContext
from trimtab_client.worker.effect_runner import EffectRunner
from trimtab_client.worker.effects import Order, Send
from trimtab_client.worker.proposal import Room, check_offer
from trimtab_client.worker.stream import Stream
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


class Inbound:
    """Passes messages of the server to the state machine, the counters and the stream.

    Used by the loop alone.
    """

    def __init__(self, context: SessionContext, effects: EffectRunner) -> None:
        self._context = context
        self._effects = effects
        self._lower_term: int | None = None

    def received(self, stream: Stream, response: Response) -> None:
        """Handle a message, unless the session no longer uses the stream that it came on."""
        if stream is not self._context.open_stream:
            return
        with self._context.lock:
            accepted = self._context.switch.accept_term(response.term)
        if not accepted:
            self._ignore(response.term)
            return
        self._lower_term = None
        if not stream.greeted:
            stream.greet()
            logger.info("session %d: connected", stream.number)
            self._effects.tell("connected", stream=stream.number)
        try:
            message = decode_response(response)
        except MalformedError as error:
            self._effects.complain(str(error))
            return
        self._handle(stream, message)

    def _ignore(self, term: int) -> None:
        """Report once for each server that its messages are ignored, and why."""
        if term == self._lower_term:
            return
        self._lower_term = term
        self._effects.complain(
            f"a server of term {term}, since one of term {self._context.switch.term} has been "
            "heard: another server has followed it"
        )

    def _handle(self, stream: Stream, message: ServerMessage) -> None:
        match message:
            case Directive():
                stream.reports.directed(message, self._context.clock())
            case ReportAck():
                stream.reports.acknowledged(message.seq)
                self._context.counters.acknowledged(message.seq)
            case Drain():
                logger.info("the server stops in %.1f s", message.seconds)
                stream.drained = True
                stream.leave_at = min(stream.leave_at, self._context.clock() + message.seconds)
            case UnreadableOffer():
                self._refuse(stream, Refused(*message))
            case Offer():
                self._check_offer(stream, message)
            case Welcome() | Commit() | Abort():
                self._order(stream, message)

    def _check_offer(self, stream: Stream, proposal: Offer) -> None:
        switch, options = self._context.switch, self._context.options
        if switch.in_force is not None and proposal.version <= switch.in_force:
            return  # It comes late, and its base may no longer be in force.
        room = Room(switch.gpus, options.staging_slots, options.max_layers_per_switch)
        try:
            offer = check_offer(proposal, switch.placement, room)
        except ProtocolError as error:
            self._refuse(stream, Refused(proposal.version, proposal.digest, str(error)))
        else:
            self._order(stream, offer)

    def _order(self, stream: Stream, order: Order) -> None:
        switch = self._context.switch
        with self._context.lock:
            effects = switch.ordered(stream.number, switch.term, order)
        self._effects.run(stream, effects)

    def _refuse(self, stream: Stream, refused: Refused) -> None:
        """Refuse an offer that the state machine cannot handle."""
        self._effects.run(stream, [Send(refused)])
