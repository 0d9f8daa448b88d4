"""The methods of SolverService: decode, call, encode."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from typing import Any

from google.rpc import code_pb2

from trimtab.v1 import solver_service_pb2, solver_service_pb2_grpc
from trimtab_server.domain.errors import (
    DeadlineExceededError,
    TrimtabError,
    UnavailableError,
    invalid,
)
from trimtab_server.engine.observer import Observer
from trimtab_server.engine.place_stream import PlaceStream
from trimtab_server.engine.planner import Planner
from trimtab_server.rpc.admission import Admission
from trimtab_server.rpc.decode import decode_config, decode_load, decode_pack, decode_place
from trimtab_server.rpc.encode import encode_packed, encode_placed
from trimtab_server.rpc.fields import PACK_FIELDS, PLACE_FIELDS, named_as
from trimtab_server.rpc.reader import Reader
from trimtab_server.rpc.status import stream_error

Context = Any  # grpc.aio.ServicerContext of either kind of method
Answer = solver_service_pb2.PlaceStreamResponse


class SolverServicer(solver_service_pb2_grpc.SolverServiceServicer):
    """Raises the server's own errors, which the interceptor converts to statuses."""

    def __init__(
        self, planner: Planner, admission: Admission, observer: Observer, idle_seconds: float
    ) -> None:
        self._planner = planner
        self._admission = admission
        self._observer = observer
        self._idle_seconds = idle_seconds

    async def Pack(  # noqa: N802
        self, request: solver_service_pb2.PackRequest, context: Context
    ) -> solver_service_pb2.PackResponse:
        """Packs weighted items."""
        with named_as(PACK_FIELDS):
            packed = await self._planner.pack(*decode_pack(request), deadline=_deadline(context))
            return encode_packed(packed)

    async def Place(  # noqa: N802
        self, request: solver_service_pb2.PlaceRequest, context: Context
    ) -> solver_service_pb2.PlaceResponse:
        """Places one load."""
        with named_as(PLACE_FIELDS):
            placed = await self._planner.place(*decode_place(request), deadline=_deadline(context))
            return encode_placed(placed)

    async def PlaceStream(  # noqa: N802
        self, request_iterator: Any, context: Context
    ) -> AsyncIterator[Answer]:
        """Places one load after another."""
        async with Reader(context, self._admission.draining, self._idle_seconds) as reader:
            first = await reader.read()
            if first is None:
                return
            stream = await _open(self._planner, first, _deadline(context))
            while (request := await reader.read()) is not None:
                answer = await _answer(stream, request, _deadline(context))
                self._observer.load_answered(code_pb2.Code.Name(answer.error.code))
                yield answer


async def _open(
    planner: Planner, first: solver_service_pb2.PlaceStreamRequest, deadline: float
) -> PlaceStream:
    if not first.HasField("config"):
        raise invalid("config", "has to be the first message of the stream")
    terms, current = decode_config(first.config)
    if current is None:
        return PlaceStream(planner, terms)
    with named_as(PLACE_FIELDS):
        return PlaceStream(planner, terms, await planner.accept(current, terms, deadline=deadline))


async def _answer(
    stream: PlaceStream, request: solver_service_pb2.PlaceStreamRequest, deadline: float
) -> Answer:
    """The answer to one load. An error of this load alone does not end the stream."""
    if not request.HasField("load"):
        kind = request.WhichOneof("message") or "load"
        raise invalid(kind, "every message of the stream after the first has to be a load")
    try:
        with named_as(PLACE_FIELDS):
            placed = await stream.place(decode_load(request.load), deadline=deadline)
    except (DeadlineExceededError, UnavailableError):
        raise  # the deadline is that of the whole stream, so no later load can succeed
    except TrimtabError as error:
        return Answer(id=request.load.id, error=stream_error(error))
    return Answer(id=request.load.id, placed=encode_placed(placed))


def _deadline(context: Context) -> float:
    """The deadline of the call, in seconds on the event loop's clock."""
    remaining = context.time_remaining()
    return math.inf if remaining is None else asyncio.get_running_loop().time() + remaining
