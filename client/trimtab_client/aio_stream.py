"""The two halves of a stream for asyncio: a task pumps, the caller's task consumes."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable
from typing import Any

import grpc
import numpy.typing as npt

from trimtab_client.aio_status import close_is_an_error, reveal
from trimtab_client.results import StreamItem
from trimtab_client.status import error_of_call
from trimtab_client.streaming import (
    LoadsFailed,
    Request,
    StreamEnd,
    StreamSetup,
    Taken,
    check_end,
    decode_item,
    encode_load,
)

Loads = AsyncIterable[npt.ArrayLike] | Iterable[npt.ArrayLike]


class Pump:
    """Takes loads from the caller's iterator, at most `max_in_flight` beyond the results read."""

    def __init__(self, setup: StreamSetup, loads: Loads) -> None:
        self._config = setup.config
        self._loads = aiter(loads) if isinstance(loads, AsyncIterable) else _aiter(iter(loads))
        self._slots = asyncio.Semaphore(setup.max_in_flight)
        self.taken: asyncio.Queue[Taken] = asyncio.Queue()

    async def run(self, call: Any) -> None:
        """Send until the loads or the call end."""
        try:
            await self._send(call)
        except (grpc.RpcError, asyncio.InvalidStateError):
            # The call is over. The consumer reads why, and tells the caller.
            return

    def free_slot(self) -> None:
        """Let one more load be taken."""
        self._slots.release()

    async def _send(self, call: Any) -> None:
        await call.write(self._config)
        for index in itertools.count():
            await self._slots.acquire()
            taken, request = await self._take(index)
            self.taken.put_nowait(taken)
            if request is not None:
                await call.write(request)
            elif not isinstance(taken, StreamItem):
                await call.done_writing()
                return

    async def _take(self, index: int) -> tuple[Taken, Request | None]:
        try:
            return encode_load(index, await anext(self._loads))
        except StopAsyncIteration:
            return StreamEnd.NO_MORE_LOADS, None
        except BaseException as error:  # noqa: BLE001 - raised again, by the consumer
            return LoadsFailed(error), None


async def stream_items(
    start: Callable[[], Any], pump: Pump, num_gpus: int
) -> AsyncGenerator[StreamItem]:
    """Yield the result of each load, in order. The call starts with the first `anext`."""
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
            if isinstance(taken, LoadsFailed):
                raise taken.error
            if isinstance(taken, StreamItem):
                yield taken
            else:
                yield decode_item(taken, await _next(call, responses), num_gpus)
            # The slot is freed only now, when the caller asks for the next result: so a load
            # may depend on all results but the last `max_in_flight` - 1.
            pump.free_slot()
        check_end(taken, await _next(call, responses))
    finally:
        call.cancel()  # and so, by `end`, the pump
        await asyncio.wait([pumping])


async def _next(call: Any, responses: AsyncIterator[Any]) -> Any:
    """The next response, or None at the end of the stream."""
    try:
        with close_is_an_error():
            return await anext(responses, None)
    except grpc.RpcError as failure:
        raise error_of_call(await reveal(call, failure)) from failure


async def _aiter(loads: Any) -> AsyncIterator[npt.ArrayLike]:
    for load in loads:
        yield load
