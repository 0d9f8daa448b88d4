"""The worker session for threads. `worker.aio` has its twin for asyncio."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, Self, SupportsIndex

import grpc

from trimtab.v1alpha1.session_service_pb2_grpc import SessionServiceStub
from trimtab_client.status import error_of_call
from trimtab_client.worker.base import SessionBase
from trimtab_client.worker.context import Job
from trimtab_client.worker.offer import Flip, SwitchOffer
from trimtab_client.worker.stream import OutboxSignal, Stream
from trimtab_protocol.wire.requests import Request

logger = logging.getLogger(__package__)

OnOffer = Callable[[SwitchOffer], Future[Any] | bool | None]
Barrier = Callable[[Sequence[int]], Sequence[int]]


class WorkerSession(SessionBase[OnOffer, Barrier]):
    """A worker's side of the coordinated switch, and its counters (PROTOCOL.md).

    A session connects in the background, again and again, and never holds up the engine:
    without a server, steps go on with the current placement. A session does not survive a fork:
    make it in the process that uses it. Use it as a context manager, or call `close`. In another
    process, or once it is closed, its methods raise ClientClosedError.

        flip = session.at_step_boundary(step)
        if flip is not None:
            ...  # copy staging to slots, replace the maps of flip.layers
            session.applied()
        ...  # the step
        session.record(counts, step, step)

    One thread, the engine's, calls `at_step_boundary`, `applied` and `regroup`. The session
    calls the callbacks on its own thread, one after another, and they have to return soon; only
    `on_offer` of a collective transfer is called inside `at_step_boundary`, at the same step on
    all ranks. An exception of a callback is logged, and the session continues; a SystemExit or
    KeyboardInterrupt inside `at_step_boundary` is also raised there.

    Args:
        target: "host:port", "unix:path", or any other gRPC target.
        options: the worker's name, placement, GPUs and limits.
        on_offer: begins to fill staging. If it returns a `Future`, the transfer ends with that:
            a result means that staging is filled, an exception that the transfer failed. True
            or None means that staging is filled already, and False or an exception that it
            cannot be filled.
        on_abort: frees staging. Called once for each offer that is given up, when no transfer
            into staging is running any more; a collective offer may be given up before
            `on_offer` was called for it.
        on_state: is called with each change of the session's state; None for no such calls.
        barrier: takes two int64 and returns their elementwise minimum over all ranks of
            the group. None is allowed only if this worker owns all GPUs.
        barrier_every: the barrier is called before each step that is a multiple of this. It has
            to be the same on all ranks of a group.
        tls: how to reach a server that speaks TLS; None for plain text.
        retry: how long to wait before reconnecting. Its `max_attempts` is ignored.
        max_message_bytes: largest message sent or received, at most 2**31 - 1.
        clock: returns the time in seconds, which never falls.
        random: returns a number in [0, 1), which spreads reconnects.

    Raises:
        InvalidArgumentError: an argument is out of its range.
    """

    def _start(self, name: str, connect: Callable[[Any], Any]) -> None:
        self._jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._channel = connect(grpc)
        self._stub = SessionServiceStub(self._channel)
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
        self._thread.start()

    def _run_soon(self, job: Job) -> None:
        self._jobs.put(job)

    def at_step_boundary(self, step: SupportsIndex) -> Flip | None:
        """Call this before each step. It never waits for a server.

        Args:
            step: the number of the step about to begin, the same on all ranks; each
                above the last, until `regroup`, and at most 2**63 - 2.

        Returns:
            The flip to make before the step; None if there is none.

        Raises:
            InvalidArgumentError: a flip has not been applied, steps run backwards or too far,
                or the barrier's result is not two integers.
        """
        values = self._contribution(step)
        if values is None:
            return None
        return self._agreed(values if self._barrier is None else self._barrier(values))

    def close(self, reason: str = "", *, timeout: float = 5.0) -> None:
        """Tell the server that the worker leaves, and end. May be called again.

        An offer that the worker holds stays as it is.

        Args:
            reason: why the worker leaves, for people.
            timeout: longest wait for the server's answer, in seconds.
        """
        if self._closed:
            return
        self._require_open()
        self._closed = True
        self._jobs.put(lambda: self._connector.close(reason, timeout))
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # The session's own thread.

    def _loop(self) -> None:
        try:
            while not self._connector.closing:
                self._run_stream()
        finally:
            self._channel.close()

    def _run_stream(self) -> None:
        """Open a stream, use it until it ends, and wait until the next may begin."""
        try:
            stream = self._connector.open(queue.SimpleQueue())
            while not stream.ready:
                self._run_next(None)
            if stream.is_open:
                self._run(partial(self._converse, stream))
            self._connector.ended(stream, None)
            while (pause := self._connector.pause()) > 0:
                self._run_next(pause)
        except BaseException:
            logger.exception("the session failed between streams, and continues")
            self._run_next(self._max_backoff)

    def _converse(self, stream: Stream) -> None:
        call = self._stub.Session(self._requests(stream), wait_for_ready=stream.wait_for_ready)
        if not call.add_callback(stream.end):
            stream.end()
        name = f"{self._thread.name} reader"
        reader = threading.Thread(target=self._read, args=(call, stream), name=name, daemon=True)
        try:
            reader.start()
            while stream.is_open:
                self._run_next(self._connector.timeout(stream))
        finally:
            call.cancel()
        reader.join()

    def _run_next(self, timeout: float | None) -> None:
        """Run the next job, if one comes in time, and then what is due."""
        try:
            longest = threading.TIMEOUT_MAX
            job = self._jobs.get(timeout=None if timeout is None else min(timeout, longest))
        except queue.Empty:
            pass
        else:
            self._run(job)
        self._run(self._connector.tick)

    # gRPC's threads.

    def _requests(self, stream: Stream) -> Iterator[Request]:
        """The messages to send. gRPC iterates over them on a thread of its own."""
        outbox: Any = stream.outbox
        while (item := outbox.get()) is not OutboxSignal.END:
            yield self._connector.report(stream) if item is OutboxSignal.REPORT else item

    def _read(self, call: Any, stream: Stream) -> None:
        error = None
        try:
            for response in call:
                self._jobs.put(partial(self._inbound.received, stream, response))
        except grpc.RpcError as failure:
            error = error_of_call(failure)
        finally:
            self._jobs.put(partial(self._connector.ended, stream, error))
