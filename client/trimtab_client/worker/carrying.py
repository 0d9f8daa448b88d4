"""Carries out what the state machine asks for: answers, the engine's callbacks, notes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from trimtab_client.worker.effects import Complain, Discard, Effect, Note, Prepare, Send
from trimtab_client.worker.events import StateEvent
from trimtab_client.worker.link import Link
from trimtab_client.worker.offer import SwitchOffer
from trimtab_client.worker.shared import Post, Shared
from trimtab_protocol.lines import kind_of, values_of
from trimtab_protocol.messages import Answer, Refused
from trimtab_protocol.wire.requests import encode_answer

logger = logging.getLogger(__package__)

Exits = tuple[type[BaseException], ...]
EXITS: Exits = (KeyboardInterrupt, SystemExit)
"""What ends a program, if it is raised on a thread of the program's own."""


@dataclass(frozen=True)
class Callbacks:
    """What the engine does for a session; see `WorkerSession`.

    Attributes:
        exits: what they raise on the loop that goes on its way once it is logged: `EXITS`
            where the loop runs on the engine's own thread, and nothing where it does not,
            since there it would only end the session. All else is a failure of the callback.
    """

    on_offer: Callable[[SwitchOffer], Any]
    on_abort: Callable[[SwitchOffer], object]
    on_state: Callable[[StateEvent], object] | None
    exits: Exits = ()


class Carrier:
    """Used by the loop; only `prepare` is called on the engine's thread, too.

    Args:
        shared: the state machine, which hears how transfers have ended.
        callbacks: what the engine does.
        post: has the loop run a task.
    """

    def __init__(self, shared: Shared, callbacks: Callbacks, post: Post) -> None:
        self._shared = shared
        self._callbacks = callbacks
        self._post = post

    def perform(self, link: Link | None, effects: list[Effect]) -> None:
        """Carry out effects, in order. Answers are for `link`, and lost if it is."""
        for effect in effects:
            match effect:
                case Send(answer):
                    self._send(link, answer)
                case Prepare(offer=SwitchOffer() as offer):
                    self.prepare(offer, self._callbacks.exits)
                case Discard(offer=SwitchOffer() as offer):
                    self._discard(offer)
                case Complain(reason):
                    self.complain(reason)
                case Note(event):
                    logger.info("%s: %s", kind_of(event), event.version)
                    self.tell(kind_of(event), **values_of(event))

    def prepare(self, offer: SwitchOffer, exits: Exits = EXITS) -> None:
        """Have the engine begin; on the engine's thread for a collective transfer."""
        logger.info("preparing %s: %d layers", offer.version, len(offer.layers))
        try:
            begun = self._callbacks.on_offer(offer)
        except BaseException as error:
            logger.exception("on_offer failed for %s", offer.version)
            self._end_transfer(offer, f"on_offer failed: {error!r}")
            if isinstance(error, exits):
                raise
            return
        if hasattr(begun, "add_done_callback"):
            begun.add_done_callback(lambda future: self._end_transfer(offer, _failure_of(future)))
        else:
            self._end_transfer(offer, _failure(begun))

    def complain(self, reason: str) -> None:
        """The server said what has no effect."""
        logger.warning("ignored: %s", reason)
        self.tell("complaint", reason=reason)

    def tell(self, kind: str, **values: Any) -> None:
        """Tell whoever watches; see `StateEvent`."""
        if self._callbacks.on_state is None:
            return
        try:
            self._callbacks.on_state(StateEvent(kind, values))
        except BaseException as error:
            logger.exception("on_state failed at %r", kind)
            if isinstance(error, self._callbacks.exits):
                raise

    def _send(self, link: Link | None, answer: Answer) -> None:
        if isinstance(answer, Refused):
            logger.warning("refused %s: %s", answer.version, answer.reason)
        if link is not None:
            link.outbox.put_nowait(encode_answer(answer))

    def _discard(self, offer: SwitchOffer) -> None:
        logger.info("discarding %s", offer.version)
        try:
            self._callbacks.on_abort(offer)
        except BaseException as error:
            logger.exception("on_abort failed for %s", offer.version)
            if isinstance(error, self._callbacks.exits):
                raise

    def _end_transfer(self, offer: SwitchOffer, failure: str | None) -> None:
        """Called on whatever thread the transfer has ended."""
        self._post(partial(self._transferred, offer, failure))

    def _transferred(self, offer: SwitchOffer, failure: str | None) -> None:
        shared = self._shared
        with shared.lock:
            effects, link = shared.switch.prepared(offer.version, failure), shared.link
        self.perform(link, effects)


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
