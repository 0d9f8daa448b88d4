"""The part that the two clients' streams share: the order of loads, and the result of each.

A stream has two halves that run at once. The *pump* takes loads from the caller's
iterator and sends them; the *consumer* yields the results. The pump tells the consumer
about each load through a queue, in order (`Taken`). So a load that cannot be sent keeps its
place among those that were.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

import numpy.typing as npt

from trimtab.v1 import solver_service_pb2
from trimtab_client import wire
from trimtab_client.checks import integer
from trimtab_client.exceptions import ProtocolError, TrimtabError
from trimtab_client.options import MoveBudget, SolverOptions, Topology
from trimtab_client.placement import Placement
from trimtab_client.results import StreamItem
from trimtab_client.retry import check_timeout, grpc_timeout
from trimtab_client.status import error_of_message

Request = solver_service_pb2.PlaceStreamRequest


@dataclass(frozen=True)
class Sent:
    """A load on its way to the server: its position, and E, its number of experts."""

    index: int
    num_experts: int


class StreamEnd(Enum):
    """Why no load follows."""

    NO_MORE_LOADS = auto()
    CALL_ENDED = auto()


@dataclass(frozen=True)
class LoadsFailed:
    """The caller's iterator raised `error`."""

    error: BaseException


Taken = Sent | StreamItem | LoadsFailed | StreamEnd
"""What the pump tells the consumer; a StreamItem is a load that cannot be sent."""


@dataclass(frozen=True)
class StreamSetup:
    """The checked arguments of `place_stream`.

    Attributes:
        config: the first message to send.
        max_in_flight: maximum number of loads taken whose results have not been consumed.
        timeout: of the whole stream, as gRPC wants it: None if there is no limit.
        num_gpus: G of the placements in the answers.
    """

    config: Request
    max_in_flight: int
    timeout: float | None
    num_gpus: int


def stream_setup(
    topology: Topology,
    current: Placement | npt.ArrayLike | None,
    budget: MoveBudget | None,
    options: SolverOptions | None,
    max_in_flight: int,
    timeout: float,
) -> StreamSetup:
    """Check the arguments of `place_stream`.

    Raises:
        InvalidArgumentError: an argument cannot be sent.
    """
    return StreamSetup(
        config=wire.stream_config(topology, current, budget, options),
        max_in_flight=integer(max_in_flight, "max_in_flight", low=1),
        timeout=grpc_timeout(check_timeout(timeout)),
        num_gpus=topology.num_gpus,
    )


def encode_load(index: int, load: npt.ArrayLike) -> tuple[Sent | StreamItem, Request | None]:
    """What to tell the consumer about a load, and the message to send, None if there is none."""
    try:
        request = wire.stream_load(index, load)
    except TrimtabError as error:
        return StreamItem(index, error=error), None
    return Sent(index, request.load.load.shape[1]), request


def decode_item(
    sent: Sent, response: solver_service_pb2.PlaceStreamResponse | None, num_gpus: int
) -> StreamItem:
    """The result of a load, from the server's next answer; None if the server ended the stream.

    Raises:
        ProtocolError: the server ended the stream, answered out of order, or sent a
            malformed message.
    """
    if response is None:
        raise ProtocolError(f"the server ended the stream without an answer to load {sent.index}")
    if response.id != sent.index:
        raise ProtocolError(f"the server answered load {response.id} instead of {sent.index}")
    if response.HasField("error"):
        return StreamItem(sent.index, error=error_of_message(response.error))
    result = wire.place_result(response.placed, sent.num_experts, num_gpus)
    return StreamItem(sent.index, result=result)


def check_end(end: StreamEnd, response: object) -> None:
    """Check the server's answer after the last load; None if the server ended the stream.

    Raises:
        ProtocolError: the server answered more than it was asked, or ended the stream
            before the loads ended.
    """
    if end is StreamEnd.CALL_ENDED:
        raise ProtocolError("the server ended the stream before the loads ended")
    if response is not None:
        raise ProtocolError("the server answered more loads than it was sent")
