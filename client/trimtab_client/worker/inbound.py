"""Handles the messages of the server."""

from __future__ import annotations

import logging
import math

from trimtab_client.exceptions import ProtocolError
from trimtab_client.worker.context import SessionContext
from trimtab_client.worker.effect_runner import EffectRunner
from trimtab_client.worker.proposal import check_offer
from trimtab_client.worker.stream import Stream
from trimtab_client.worker.switch import Order
from trimtab_protocol import messages
from trimtab_protocol.errors import MalformedError
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
            # The session stays on this stream.
            stream.greeted, stream.leave_at = True, math.inf
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

    def _handle(self, stream: Stream, message: messages.ServerMessage) -> None:
        match message:
            case messages.Directive():
                stream.reports.directed(message, self._context.clock())
            case messages.ReportAck():
                stream.reports.acknowledged(message.seq)
                self._context.counters.acknowledged(message.seq)
            case messages.Drain():
                logger.info("the server stops in %.1f s", message.seconds)
                stream.drained = True
                stream.leave_at = min(stream.leave_at, self._context.clock() + message.seconds)
            case messages.UnreadableOffer():
                self._effects.run(stream, [messages.Refused(*message)])
            case messages.Offer():
                self._check_offer(stream, message)
            case messages.Welcome() | messages.Commit() | messages.Abort():
                self._order(stream, message)

    def _check_offer(self, stream: Stream, proposal: messages.Offer) -> None:
        switch, options = self._context.switch, self._context.options
        if switch.in_force is not None and proposal.version <= switch.in_force:
            return  # It comes late, and its base may no longer be in force.
        limits = options.staging_slots, options.max_layers_per_switch
        try:
            offer = check_offer(proposal, switch.placement, switch.gpus, *limits)
        except ProtocolError as error:
            refused = messages.Refused(proposal.version, proposal.digest, str(error))
            self._effects.run(stream, [refused])
        else:
            self._order(stream, offer)

    def _order(self, stream: Stream, order: Order) -> None:
        switch = self._context.switch
        with self._context.lock:
            effects = switch.ordered(stream.number, switch.term, order)
        self._effects.run(stream, effects)
