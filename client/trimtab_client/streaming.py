"""The streams of `place_stream`, for threads and for asyncio.

A stream has two halves that run at once. The *pump* takes loads from the caller's iterator and
sends them: on gRPC's own thread, or in a task. The *consumer* yields the results to the caller.
The pump tells the consumer about each load through a queue, in order (`Taken`). So a load that
cannot be sent keeps its place among those that were.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import queue
import threading
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
)
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import grpc
import numpy.typing as npt

from trimtab.v1 import solver_service_pb2
from trimtab_client import wire
from trimtab_client.aio_status import next_response, reveal
from trimtab_client.checks import integer
from trimtab_client.exceptions import ProtocolError, TrimtabError
from trimtab_client.results import StreamItem
from trimtab_client.retry import check_timeout
from trimtab_client.status import SOLVING, error_of_call, error_of_message

Request = solver_service_pb2.PlaceStreamRequest
AioLoads = AsyncIterable[npt.ArrayLike] | Iterable[npt.ArrayLike]


@dataclass(frozen=True)
class Sent:
    """A load on its way to the server: its position, and E, its number of experts."""

    index: int
    num_experts: int


class StreamEnd(Enum):
    """Why no load follows."""

    NO_MORE_LOADS = auto()
    CALL_ENDED = auto()


Taken = Sent | StreamItem | BaseException | StreamEnd
"""A load that was sent, or that cannot be sent; what the caller's iterator raised; the end."""


class StreamSetup:
    """The first message of a stream, G of its answers, and the limits of `place_stream`."""

    def __init__(self, config: Request, num_gpus: int, max_in_flight: int, timeout: float) -> None:
        self.config = config
        self.num_gpus = num_gpus
        self.max_in_flight = integer(max_in_flight, "max_in_flight", low=1)
        seconds = check_timeout(timeout)
        self.timeout = None if math.isinf(seconds) else seconds


class Pump:
    """The pump of a stream for threads."""

    def __init__(self, setup: StreamSetup, loads: Iterable[npt.ArrayLike]) -> None:
        self.setup = setup
        self.slots = threading.Semaphore(setup.max_in_flight)
        self.taken: queue.SimpleQueue[Taken] = queue.SimpleQueue()
        self._loads = iter(loads)
        self._ended = False

    def requests(self) -> Iterator[Request]:
        """The messages to send. gRPC iterates over them on a thread of its own."""
        yield self.setup.config
        for index in itertools.count():
            self.slots.acquire()
            if self._ended:
                return
            taken, request = self._take(index)
            self.taken.put(taken)
            if request is not None:
                yield request
            elif not isinstance(taken, StreamItem):
                return

    def end(self) -> None:
        """Take no more loads, because the call is over. Wakes both halves."""
        self._ended = True
        self.slots.release()
        self.taken.put(StreamEnd.CALL_ENDED)

    def _take(self, index: int) -> tuple[Taken, Request | None]:
        try:
            return _encode(index, next(self._loads))
        except StopIteration:
            return StreamEnd.NO_MORE_LOADS, None
        except BaseException as error:  # noqa: BLE001 - raised again, by the consumer
            return error, None


def stream_items(start: Callable[[Iterator[Request]], Any], pump: Pump) -> Generator[StreamItem]:
    """Yield the result of each load, in order. The call starts with the first `next`."""
    call = start(pump.requests())
    if not call.add_callback(pump.end):
        pump.end()
    try:
        while not isinstance(taken := pump.taken.get(), StreamEnd):
            if isinstance(taken, BaseException):
                raise taken
            if isinstance(taken, StreamItem):
                yield taken
            else:
                yield _decode(taken, _next(call), pump.setup)
            # The slot is freed only now, when the caller asks for the next result: so a load
            # may depend on all results but the last `max_in_flight` - 1.
            pump.slots.release()
        _check_end(taken, _next(call))
    finally:
        call.cancel()  # and so, by the callback, the pump


def _next(call: Any) -> Any:
    """The next response, or None at the end of the stream."""
    try:
        return next(call, None)
    except grpc.RpcError as failure:
        raise error_of_call(failure, SOLVING) from failure


class AioPump:
    """The pump of a stream for asyncio."""

    def __init__(self, setup: StreamSetup, loads: AioLoads) -> None:
        self.setup = setup
        self.slots = asyncio.Semaphore(setup.max_in_flight)
        self.taken: asyncio.Queue[Taken] = asyncio.Queue()
        self._loads = aiter(loads) if isinstance(loads, AsyncIterable) else _aiter(iter(loads))

    async def run(self, call: Any) -> None:
        """Send until the loads or the call end."""
        # If the call is over, the consumer reads why, and tells the caller.
        with suppress(grpc.RpcError, asyncio.InvalidStateError):
            await call.write(self.setup.config)
            for index in itertools.count():
                await self.slots.acquire()
                taken, request = await self._take(index)
                self.taken.put_nowait(taken)
                if request is not None:
                    await call.write(request)
                elif not isinstance(taken, StreamItem):
                    await call.done_writing()
                    return

    async def _take(self, index: int) -> tuple[Taken, Request | None]:
        try:
            return _encode(index, await anext(self._loads))
        except StopAsyncIteration:
            return StreamEnd.NO_MORE_LOADS, None
        except BaseException as error:  # noqa: BLE001 - raised again, by the consumer
            return error, None


async def aio_stream_items(start: Callable[[], Any], pump: AioPump) -> AsyncGenerator[StreamItem]:
    """`stream_items` for asyncio."""
    call = start()
    pumping = asyncio.create_task(pump.run(call))

    def end(_: object) -> None:
        pumping.cancel()
        pump.taken.put_nowait(StreamEnd.CALL_ENDED)

    call.add_done_callback(end)
    # `call.read()` would leave answers unread once the call is done.
    responses = aiter(call)
    try:
        while not isinstance(taken := await pump.taken.get(), StreamEnd):
            if isinstance(taken, BaseException):
                raise taken
            if isinstance(taken, StreamItem):
                yield taken
            else:
                yield _decode(taken, await _aio_next(call, responses), pump.setup)
            pump.slots.release()  # only now, as in `stream_items`
        _check_end(taken, await _aio_next(call, responses))
    finally:
        call.cancel()  # and so, by `end`, the pump
        await asyncio.wait([pumping])


async def _aio_next(call: Any, responses: AsyncIterator[Any]) -> Any:
    try:
        return await next_response(responses)
    except grpc.RpcError as failure:
        raise error_of_call(await reveal(call, failure), SOLVING) from failure


async def _aiter(loads: Any) -> AsyncIterator[npt.ArrayLike]:
    for load in loads:
        yield load


def _encode(index: int, load: npt.ArrayLike) -> tuple[Sent | StreamItem, Request | None]:
    """What to tell the consumer about a load, and the message to send, None if there is none."""
    try:
        request = wire.stream_load(index, load)
    except TrimtabError as error:
        return StreamItem(index, error=error), None
    return Sent(index, request.load.load.shape[1]), request


def _decode(sent: Sent, response: Any, setup: StreamSetup) -> StreamItem:
    """The result of a load, from the server's next response; None if the stream has ended."""
    if response is None:
        raise ProtocolError(f"the server ended the stream without an answer to load {sent.index}")
    if response.id != sent.index:
        raise ProtocolError(f"the server answered load {response.id} instead of {sent.index}")
    if response.HasField("error"):
        return StreamItem(sent.index, error=error_of_message(response.error))
    result = wire.place_result(response.placed, sent.num_experts, setup.num_gpus)
    return StreamItem(sent.index, result=result)


def _check_end(end: StreamEnd, response: object) -> None:
    """Check the response after the last load; None if the stream has ended."""
    if end is StreamEnd.CALL_ENDED:
        raise ProtocolError("the server ended the stream before the loads ended")
    if response is not None:
        raise ProtocolError("the server answered more loads than it was sent")
