"""The worker session for threads. `worker.aio` has its twin for asyncio."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import Any, Self, SupportsIndex

import grpc

from trimtab.v1alpha1.session_service_pb2_grpc import SessionServiceStub
from trimtab_client.channel import DEFAULT_MAX_MESSAGE_BYTES, TlsOptions, open_channel
from trimtab_client.retry import RetryPolicy
from trimtab_client.status import error_of_call
from trimtab_client.worker.backoff import DEFAULT_RECONNECT
from trimtab_client.worker.base import SessionBase, default_random
from trimtab_client.worker.carrying import Callbacks
from trimtab_client.worker.events import StateEvent
from trimtab_client.worker.link import Link, Mark
from trimtab_client.worker.offer import Flip, SwitchOffer
from trimtab_client.worker.options import WorkerOptions
from trimtab_client.worker.shared import Task
from trimtab_protocol.wire.requests import Request

logger = logging.getLogger(__package__)

OnOffer = Callable[[SwitchOffer], Future[Any] | bool | None]
Barrier = Callable[[Sequence[int]], Sequence[int]]


class WorkerSession(SessionBase):
    """A worker's side of the coordinated switch, and its counters (PROTOCOL.md).

    It connects in the background, again and again, and never holds up the engine: without
    a server, steps go on with the placement in force. It does not survive a fork: make it
    in the process that uses it. Use it as a context manager, or call `close`.

        flip = session.at_step_boundary(step)
        if flip is not None:
            ...  # copy staging to slots, replace the maps of flip.layers
            session.applied()
        ...  # the step
        session.record(counts, step, step)

    One thread, the engine's, calls `at_step_boundary`, `applied` and `regroup`. The
    callbacks are called on the session's own thread, one after another, and have to return
    soon; only `on_offer` of a collective transfer is called inside `at_step_boundary`, at
    the same step on all ranks. What they raise is logged, and the session goes on; a
    SystemExit or KeyboardInterrupt inside `at_step_boundary` goes on its way, too.

    Args:
        target: "host:port", "unix:path", or any other gRPC target.
        options: who the worker is, what it has, and what it can do.
        on_offer: begins to fill staging. A `Future` ends with the transfer: its result
            says that all is in staging, its exception why not. True or None: all is there
            already; False, or an exception: it cannot be.
        on_abort: frees staging. Called once for each offer that is given up, when no
            transfer into it runs any more; a collective one may be given up before
            `on_offer` has seen it.
        on_state: told what happens to the session.
        barrier: takes two int64 and returns their elementwise minimum over all ranks of
            the group. None: only where this worker owns all GPUs.
        barrier_every: b: the barrier is called before each step that b divides. The same
            on all ranks of a group.
        tls: how to reach a server that speaks TLS; None: plain text.
        retry: how long to wait before connecting again. `max_attempts` says nothing here.
        max_message_bytes: largest message sent or received, at most 2**31 - 1.
        clock: seconds, rising.
        random: a number in [0, 1), which spreads reconnects.

    Raises:
        InvalidArgumentError: an argument is out of its range.
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
        self._inbox: queue.SimpleQueue[Task] = queue.SimpleQueue()
        callbacks = Callbacks(on_offer, on_abort, on_state)
        super().__init__(
            options, callbacks, self._inbox.put, barrier, barrier_every, retry, clock, random
        )
        self._barrier = barrier
        self._channel = open_channel(
            grpc.insecure_channel, grpc.secure_channel, target, tls, max_message_bytes
        )
        self._stub = SessionServiceStub(self._channel)
        self._longest_pause = retry.max_backoff
        name = f"trimtab-{options.worker}"
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
        self._thread.start()

    def at_step_boundary(self, step: SupportsIndex) -> Flip | None:
        """Before each step: what to flip to before it, if anything. Never waits for a server.

        Args:
            step: the number of the step about to begin, the same on all ranks; each
                above the last, until `regroup`, and at most 2**63 - 2.

        Raises:
            InvalidArgumentError: a flip has not been applied, steps run backwards or too far,
                or the barrier's result is not two integers.
            ClientClosedError: the session is closed, or of another process.
        """
        brought = self._contribution(step)
        if brought is None:
            return None
        return self._agreed(brought if self._barrier is None else self._barrier(brought))

    def close(self, reason: str = "", *, timeout: float = 5.0) -> None:
        """Say goodbye, and end. What is held stays as it is. May be called again.

        Args:
            reason: why, for people.
            timeout: longest wait for the server to hear it, in seconds.
        """
        if self._closed:
            return
        self._require_open()
        self._closed = True
        self._inbox.put(lambda: self._core.streams.close(reason, timeout))
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # The session's own thread.

    def _loop(self) -> None:
        try:
            while not self._core.streams.closing:
                self._attend()
        finally:
            self._channel.close()

    def _attend(self) -> None:
        """Have one stream, and wait until there may be another."""
        try:
            link = self._core.streams.connect(queue.SimpleQueue())
            while not link.ready:
                self._turn(None)
            if self._core.streams.is_open(link):
                self._core.run(partial(self._converse, link))
            self._core.streams.ended(link, None)
            while (pause := self._core.streams.pause()) > 0:
                self._turn(pause)
        except BaseException:
            logger.exception("the session failed between streams, and goes on")
            self._turn(self._longest_pause)

    def _converse(self, link: Link) -> None:
        call = self._stub.Session(self._requests(link), wait_for_ready=link.waits)
        if not call.add_callback(link.end):
            link.end()
        name = f"{self._thread.name} reader"
        reader = threading.Thread(target=self._read, args=(call, link), name=name, daemon=True)
        try:
            reader.start()
            while link.is_open:
                self._turn(self._core.streams.timeout(link))
        finally:
            call.cancel()
        reader.join()

    def _turn(self, timeout: float | None) -> None:
        """Do the next thing, or what is due if none comes before that."""
        try:
            longest = threading.TIMEOUT_MAX
            task = self._inbox.get(timeout=None if timeout is None else min(timeout, longest))
        except queue.Empty:
            pass
        else:
            self._core.run(task)
        self._core.run(self._core.streams.tick)

    # gRPC's threads.

    def _requests(self, link: Link) -> Iterator[Request]:
        """What to send. gRPC iterates over it on a thread of its own."""
        outbox: Any = link.outbox
        while (item := outbox.get()) is not Mark.END:
            yield self._core.streams.report(link) if item is Mark.REPORT else item

    def _read(self, call: Any, link: Link) -> None:
        error = None
        try:
            for response in call:
                self._inbox.put(partial(self._core.received, link, response))
        except grpc.RpcError as failure:
            error = error_of_call(failure)
        finally:
            self._inbox.put(partial(self._core.streams.ended, link, error))
