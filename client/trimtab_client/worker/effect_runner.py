"""Runs the effects of the state machine: sends answers, calls the engine's callbacks, logs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from trimtab_client.worker.context import SessionContext
from trimtab_client.worker.offer import StateEvent, SwitchOffer
from trimtab_client.worker.stream import Stream
from trimtab_client.worker.switch import Complain, Discard, Effect, Prepare
from trimtab_protocol.history import Flipped, InForce
from trimtab_protocol.lines import kind_of, values_of
from trimtab_protocol.messages import Answer, Refused
from trimtab_protocol.wire.requests import encode_answer

logger = logging.getLogger(__package__)

Exits = tuple[type[BaseException], ...]
EXITS: Exits = (KeyboardInterrupt, SystemExit)
"""Exceptions that end a program, if they are raised on a thread of the program's own."""


class EffectRunner:
    """Used by the loop; only `prepare` is also called on the engine's thread.

    Args:
        on_offer: see `WorkerSession`, as of the other callbacks.
        exits: exceptions of callbacks on the loop that are raised again once they are logged:
            `EXITS` if the loop runs on the engine's own thread, and none if it does not, since
            there they would only end the session. All others count as failures of the callback.
    """

    def __init__(
        self,
        context: SessionContext,
        on_offer: Callable[[SwitchOffer], Any],
        on_abort: Callable[[SwitchOffer], object],
        on_state: Callable[[StateEvent], object] | None,
        exits: Exits = (),
    ) -> None:
        self._context = context
        self._on_offer, self._on_abort, self._on_state = on_offer, on_abort, on_state
        self._exits = exits

    def run(self, stream: Stream | None, effects: list[Effect]) -> None:
        """Run effects in order. Answers are sent on `stream`, and lost if it is lost."""
        for effect in effects:
            match effect:
                case Prepare(offer):
                    self.prepare(offer, self._exits)
                case Discard(offer):
                    logger.info("discarding %s", offer.version)
                    self._call("on_abort", offer.version, self._on_abort, offer)
                case Complain(reason):
                    self.complain(reason)
                case InForce() | Flipped():
                    logger.info("%s: %s", kind_of(effect), effect.version)
                    self.tell(kind_of(effect), **values_of(effect))
                case _ if isinstance(effect, Answer):
                    if isinstance(effect, Refused):
                        logger.warning("refused %s: %s", effect.version, effect.reason)
                    if stream is not None:
                        stream.outbox.put_nowait(encode_answer(effect))

    def prepare(self, offer: SwitchOffer, exits: Exits = EXITS) -> None:
        """Let the engine start a transfer; on the engine's thread if it is collective."""
        logger.info("preparing %s: %d layers", offer.version, len(offer.layers))
        try:
            transfer = self._on_offer(offer)
        except BaseException as error:
            logger.exception("on_offer failed for %s", offer.version)
            self._end_transfer(offer, f"on_offer failed: {error!r}")
            if isinstance(error, exits):
                raise
            return
        if hasattr(transfer, "add_done_callback"):
            transfer.add_done_callback(lambda done: self._end_transfer(offer, _failure_of(done)))
        else:
            self._end_transfer(offer, _failure(transfer))

    def complain(self, reason: str) -> None:
        """Report a message of the server that was ignored."""
        logger.warning("ignored a message of the server: %s", reason)
        self.tell("complaint", reason=reason)

    def tell(self, kind: str, **values: Any) -> None:
        """Call `on_state`, if the engine has one; see `StateEvent`."""
        if self._on_state is not None:
            self._call("on_state", repr(kind), self._on_state, StateEvent(kind, values))

    def _call(
        self, name: str, about: object, callback: Callable[[Any], object], value: object
    ) -> None:
        try:
            callback(value)
        except BaseException as error:
            logger.exception("%s failed for %s", name, about)
            if isinstance(error, self._exits):
                raise

    def _end_transfer(self, offer: SwitchOffer, failure: str | None) -> None:
        """Called on any thread, the one on which the transfer ended."""

        def transferred() -> None:
            context = self._context
            with context.lock:
                effects, stream = context.switch.prepared(offer.version, failure), context.stream
            self.run(stream, effects)

        self._context.run_soon(transferred)


def _failure_of(future: Any) -> str | None:
    """Why a transfer failed; None if it succeeded."""
    if future.cancelled():
        return "the transfer was cancelled"
    error = future.exception()
    return _failure(future.result()) if error is None else f"the transfer failed: {error!r}"


def _failure(result: object) -> str | None:
    if result is None or result is True:
        return None
    if result is False:
        return "the engine declined"
    return f"on_offer returned {result!r}, which is not a Future, True, False or None"
