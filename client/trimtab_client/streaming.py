"""What the two clients' streams share: which load comes next, and what became of it.

A stream has two halves that run at once. The *pump* takes loads from the caller's
iterator and sends them; the *consumer* yields what became of them. The pump tells
the consumer, through a queue and in order, what it took (`Taken`). So a load that
cannot be sent keeps its place among those that were.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

import numpy.typing as npt

from trimtab.v1 import solver_service_pb2
from trimtab_client import wire
from trimtab_client.exceptions import ProtocolError, TrimtabError
from trimtab_client.results import StreamItem
from trimtab_client.status import error_of_message

Request = solver_service_pb2.PlaceStreamRequest


@dataclass(frozen=True)
class Sent:
    """A load on its way to the server: its position, and E, its number of experts."""

    index: int
    num_experts: int


class Mark(Enum):
    """What the consumer is told beside loads."""

    NO_MORE_LOADS = auto()
    CALL_ENDED = auto()


@dataclass(frozen=True)
class Broken:
    """The caller's iterator raised `error`."""

    error: BaseException


@dataclass(frozen=True)
class Setup:
    """What a stream starts with.

    Attributes:
        config: the first message to send.
        max_in_flight: most loads taken whose results have not been consumed.
        timeout: of the whole stream, as gRPC wants it: None where there is no limit.
        num_gpus: G of the placements to come.
    """

    config: Request
    max_in_flight: int
    timeout: float | None
    num_gpus: int


Taken = Sent | StreamItem | Broken | Mark


def prepare(index: int, load: npt.ArrayLike) -> tuple[Sent | StreamItem, Request | None]:
    """What the consumer is told about a load, and the message to send, or None."""
    try:
        request = wire.stream_load(index, load)
    except TrimtabError as error:
        return StreamItem(index, error=error), None
    return Sent(index, request.load.load.shape[1]), request


def settle(
    sent: Sent, response: solver_service_pb2.PlaceStreamResponse | None, num_gpus: int
) -> StreamItem:
    """What became of a load, from the server's next answer (None: there is none).

    Raises:
        ProtocolError: the server ended the stream, or answered out of order, or
            with a malformed message.
    """
    if response is None:
        raise ProtocolError(f"the server ended the stream without an answer to load {sent.index}")
    if response.id != sent.index:
        raise ProtocolError(f"the server answered load {response.id} instead of {sent.index}")
    if response.HasField("error"):
        return StreamItem(sent.index, error=error_of_message(response.error))
    result = wire.place_result(response.placed, sent.num_experts, num_gpus)
    return StreamItem(sent.index, result=result)


def check_end(mark: Mark, response: object) -> None:
    """Check what the server said after the last load (None: it ended the stream).

    Raises:
        ProtocolError: it answered more than it was asked, or ended the stream
            before the loads ended.
    """
    if mark is Mark.CALL_ENDED:
        raise ProtocolError("the server ended the stream before the loads ended")
    if response is not None:
        raise ProtocolError("the server answered more loads than it was sent")
