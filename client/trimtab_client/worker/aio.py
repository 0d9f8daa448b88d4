"""The worker session for asyncio: the twin of `worker.session.WorkerSession`."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, SupportsIndex, cast

import grpc

from trimtab.v1alpha1.session_service_pb2_grpc import SessionServiceStub
from trimtab_client.aio_status import close_is_an_error, reveal
from trimtab_client.channel import DEFAULT_MAX_MESSAGE_BYTES, TlsOptions, open_channel
from trimtab_client.exceptions import CallCancelledError, TrimtabError
from trimtab_client.retry import RetryPolicy
from trimtab_client.status import error_of_call
from trimtab_client.worker.backoff import DEFAULT_RECONNECT
from trimtab_client.worker.base import SessionBase, default_random
from trimtab_client.worker.carrying import EXITS, Callbacks
from trimtab_client.worker.events import StateEvent
from trimtab_client.worker.link import Link, Mark
from trimtab_client.worker.offer import Flip, SwitchOffer
from trimtab_client.worker.options import WorkerOptions
from trimtab_client.worker.shared import Task

if TYPE_CHECKING:
    from trimtab.v1alpha1.session_service_pb2_grpc import SessionServiceAsyncStub

logger = logging.getLogger(__package__)

OnOffer = Callable[[SwitchOffer], Future[Any] | Awaitable[Any] | bool | None]
Barrier = Callable[[Sequence[int]], Sequence[int] | Awaitable[Sequence[int]]]


class AsyncWorkerSession(SessionBase):
    """`WorkerSession` for asyncio: the same calls and arguments.

    It belongs to the event loop that runs when it is made, and that is its engine's thread.
    `at_step_boundary` and `close` are awaited; the others wait for nothing, and are plain
    calls. `on_offer` and `barrier` may be coroutine functions. All callbacks are called on
    the event loop: a SystemExit or KeyboardInterrupt of theirs ends that, as of any task.

    Args:
        target: as in `WorkerSession`, as are all others.
        options: who the worker is, what it has, and what it can do.
        on_offer: begins to fill staging.
        on_abort: frees staging.
        on_state: told what happens to the session.
        barrier: takes two int64 and returns their elementwise minimum over all ranks.
        barrier_every: b: the barrier is called before each step that b divides.
        tls: how to reach a server that speaks TLS; None: plain text.
        retry: how long to wait before connecting again.
        max_message_bytes: largest message sent or received, at most 2**31 - 1.
        clock: seconds, rising.
        random: a number in [0, 1), which spreads reconnects.

    Raises:
        InvalidArgumentError: an argument is out of its range.
        RuntimeError: no event loop runs.
    """

    def __init__(
        self,
        target: str,
        options: WorkerOptions,
        *,
        on_offer: OnOffer,
        on_abort: Callable[[SwitchOffer], object],
        on_state: Callable[[StateEvent], object] | None = None,
        barrier: Barrier | None = None,
        barrier_every: int = 1,
        tls: TlsOptions | None = None,
        retry: RetryPolicy = DEFAULT_RECONNECT,
        max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = default_random,
    ) -> None:
        self._event_loop = asyncio.get_running_loop()
        self._inbox: asyncio.Queue[Task] = asyncio.Queue()
        self._on_offer = on_offer
        # The event loop itself would forget them.
        self._transfers: set[asyncio.Future[Any]] = set()
        callbacks = Callbacks(self._begin_transfer, on_abort, on_state, EXITS)
        super().__init__(
            options, callbacks, self._post, barrier, barrier_every, retry, clock, random
        )
        self._barrier = barrier
        self._channel = open_channel(
            grpc.aio.insecure_channel, grpc.aio.secure_channel, target, tls, max_message_bytes
        )
        self._longest_pause = retry.max_backoff
        # One class at run time; only its type has an asynchronous twin.
        self._stub = cast("SessionServiceAsyncStub", SessionServiceStub(self._channel))
        self._running = asyncio.create_task(self._loop(), name=f"trimtab-{options.worker}")

    async def at_step_boundary(self, step: SupportsIndex) -> Flip | None:
        """What to flip to before this step. See `WorkerSession.at_step_boundary`."""
        brought = self._contribution(step)
        if brought is None:
            return None
        result: Any = brought if self._barrier is None else self._barrier(brought)
        return self._agreed(await result if inspect.isawaitable(result) else result)

    async def close(self, reason: str = "", *, timeout: float = 5.0) -> None:
        """Say goodbye, and end. See `WorkerSession.close`."""
        if self._closed:
            return
        self._require_open()
        self._closed = True
        self._inbox.put_nowait(lambda: self._core.streams.close(reason, timeout))
        await asyncio.wait([self._running])

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def _post(self, task: Task) -> None:
        # A transfer may end, on its own thread, when the event loop has ended already.
        with suppress(RuntimeError):
            self._event_loop.call_soon_threadsafe(self._inbox.put_nowait, task)

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
            while not self._core.streams.closing:
                await self._attend()
        finally:
            self._core.streams.abandon()
            await self._channel.close()

    async def _attend(self) -> None:
        """Have one stream, and wait until there may be another."""
        try:
            link = self._core.streams.connect(asyncio.Queue())
            while not link.ready:
                await self._turn(None)
            if self._core.streams.is_open(link):
                try:
                    await self._converse(link)
                except Exception:
                    logger.exception("the session failed, and goes on")
            self._core.streams.ended(link, None)
            while (pause := self._core.streams.pause()) > 0:
                await self._turn(pause)
        except Exception:
            logger.exception("the session failed between streams, and goes on")
            await self._turn(self._longest_pause)

    async def _converse(self, link: Link) -> None:
        call = self._stub.Session(wait_for_ready=link.waits)
        reader = asyncio.create_task(self._read(call, link))
        writer = asyncio.create_task(self._write(call, link))
        # A write after the end would hide the server's status; see `reveal`.
        call.add_done_callback(partial(_cancel, writer))
        try:
            while link.is_open:
                await self._turn(self._core.streams.timeout(link))
        finally:
            call.cancel()
            writer.cancel()
            await asyncio.wait([reader, writer])

    async def _turn(self, timeout: float | None) -> None:
        """Do the next thing, or what is due if none comes before that."""
        try:
            async with asyncio.timeout(timeout):
                task = await self._inbox.get()
        except TimeoutError:
            pass
        else:
            self._core.run(task)
        self._core.run(self._core.streams.tick)

    async def _write(self, call: Any, link: Link) -> None:
        outbox: Any = link.outbox
        try:
            while (item := await outbox.get()) is not Mark.END:
                await call.write(self._core.streams.report(link) if item is Mark.REPORT else item)
            await call.done_writing()
        except (grpc.RpcError, asyncio.InvalidStateError):
            return  # The call is over. The reader reads why.
        except Exception:
            logger.exception("the session could not send, and connects anew")
            call.cancel()

    async def _read(self, call: Any, link: Link) -> None:
        error: TrimtabError | None = None
        try:
            with close_is_an_error():
                async for response in call:
                    self._inbox.put_nowait(partial(self._core.received, link, response))
        except grpc.RpcError as failure:
            error = error_of_call(await reveal(call, failure))
        except CallCancelledError as cancelled:
            error = cancelled
        finally:
            self._inbox.put_nowait(partial(self._core.streams.ended, link, error))


def _cancel(task: asyncio.Task[None], _: object) -> None:
    task.cancel()
