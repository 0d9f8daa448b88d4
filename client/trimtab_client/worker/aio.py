"""The worker session for asyncio: the twin of `worker.session.WorkerSession`."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Self, SupportsIndex, cast

import grpc

from trimtab.v1alpha1.session_service_pb2_grpc import SessionServiceStub
from trimtab_client.aio_status import close_is_an_error, reveal
from trimtab_client.exceptions import CallCancelledError, TrimtabError
from trimtab_client.status import error_of_call
from trimtab_client.worker.base import SessionBase
from trimtab_client.worker.context import Job
from trimtab_client.worker.effect_runner import EXITS
from trimtab_client.worker.offer import Flip, SwitchOffer
from trimtab_client.worker.stream import OutboxSignal, Stream

if TYPE_CHECKING:
    from trimtab.v1alpha1.session_service_pb2_grpc import SessionServiceAsyncStub

logger = logging.getLogger(__package__)

OnOffer = Callable[[SwitchOffer], Future[Any] | Awaitable[Any] | bool | None]
Barrier = Callable[[Sequence[int]], Sequence[int] | Awaitable[Sequence[int]]]


class AsyncWorkerSession(SessionBase[OnOffer, Barrier]):
    """`WorkerSession` for asyncio: the same calls and arguments.

    A session belongs to the event loop that runs when it is made, and that loop is its engine's
    thread. `at_step_boundary` and `close` are awaited; the others wait for nothing, and are plain
    calls. `on_offer` and `barrier` may be coroutine functions. All callbacks are called on
    the event loop: a SystemExit or KeyboardInterrupt in a callback ends the loop, as in any task.

    Raises:
        InvalidArgumentError: an argument is out of its range.
        RuntimeError: no event loop is running.
    """

    _exits = EXITS

    def _start(self, name: str, connect: Callable[[Any], Any]) -> None:
        self._event_loop = asyncio.get_running_loop()
        self._jobs: asyncio.Queue[Job] = asyncio.Queue()
        # The event loop itself holds tasks by weak references only.
        self._transfers: set[asyncio.Future[Any]] = set()
        self._channel = connect(grpc.aio)
        # The stub is one class at run time; only its type has an asynchronous twin.
        self._stub = cast("SessionServiceAsyncStub", SessionServiceStub(self._channel))
        self._running = asyncio.create_task(self._loop(), name=name)

    async def at_step_boundary(self, step: SupportsIndex) -> Flip | None:
        """Call this before each step. See `WorkerSession.at_step_boundary`."""
        values = self._contribution(step)
        if values is None:
            return None
        result: Any = values if self._barrier is None else self._barrier(values)
        return self._agreed(await result if inspect.isawaitable(result) else result)

    async def close(self, reason: str = "", *, timeout: float = 5.0) -> None:
        """Tell the server that the worker leaves, and end. See `WorkerSession.close`."""
        if self._closed:
            return
        self._require_open()
        self._closed = True
        self._jobs.put_nowait(lambda: self._connector.close(reason, timeout))
        await asyncio.wait([self._running])

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    def _run_soon(self, job: Job) -> None:
        # A transfer may end, on its own thread, after the event loop has ended.
        with suppress(RuntimeError):
            self._event_loop.call_soon_threadsafe(self._jobs.put_nowait, job)

    def _begin_transfer(self, offer: SwitchOffer) -> Any:
        begun = self._on_offer(offer)
        if not inspect.isawaitable(begun):
            return begun
        transfer = asyncio.ensure_future(begun)
        self._transfers.add(transfer)
        transfer.add_done_callback(self._transfers.discard)
        return transfer

    # The session's own task.

    async def _loop(self) -> None:
        try:
            while not self._connector.closing:
                await self._run_stream()
        finally:
            self._connector.abandon()
            await self._channel.close()

    async def _run_stream(self) -> None:
        """Open a stream, use it until it ends, and wait until the next may begin."""
        try:
            stream = self._connector.open(asyncio.Queue())
            while not stream.ready:
                await self._run_next(None)
            if stream.is_open:
                try:
                    await self._converse(stream)
                except Exception:
                    logger.exception("the session failed, and continues")
            self._connector.ended(stream, None)
            while (pause := self._connector.pause()) > 0:
                await self._run_next(pause)
        except Exception:
            logger.exception("the session failed between streams, and continues")
            await self._run_next(self._max_backoff)

    async def _converse(self, stream: Stream) -> None:
        call: Any = self._stub.Session(wait_for_ready=stream.wait_for_ready)
        reader = asyncio.create_task(self._read(call, stream))
        writer = asyncio.create_task(self._write(call, stream))
        # A write after the end would hide the server's status; see `reveal`.
        call.add_done_callback(lambda _: writer.cancel())
        try:
            while stream.is_open:
                await self._run_next(self._connector.timeout(stream))
        finally:
            call.cancel()
            writer.cancel()
            await asyncio.wait([reader, writer])

    async def _run_next(self, timeout: float | None) -> None:
        """Run the next job, if one comes in time, and then what is due."""
        try:
            async with asyncio.timeout(timeout):
                job = await self._jobs.get()
        except TimeoutError:
            pass
        else:
            self._run(job)
        self._run(self._connector.tick)

    async def _write(self, call: Any, stream: Stream) -> None:
        outbox: Any = stream.outbox
        try:
            while (item := await outbox.get()) is not OutboxSignal.END:
                report = item is OutboxSignal.REPORT
                await call.write(self._connector.report(stream) if report else item)
            await call.done_writing()
        except (grpc.RpcError, asyncio.InvalidStateError):
            return  # The call is over. The reader reads why.
        except Exception:
            logger.exception("the session could not send, and reconnects")
            call.cancel()

    async def _read(self, call: Any, stream: Stream) -> None:
        error: TrimtabError | None = None
        try:
            with close_is_an_error():
                async for response in call:
                    self._jobs.put_nowait(partial(self._inbound.received, stream, response))
        except grpc.RpcError as failure:
            error = error_of_call(await reveal(call, failure))
        except CallCancelledError as cancelled:
            error = cancelled
        finally:
            self._jobs.put_nowait(partial(self._connector.ended, stream, error))
