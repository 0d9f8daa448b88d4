"""A scripted server of sessions on a real socket: the test is its brain."""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np

from tests.client.service import Failure, array_of, tensor_of
from trimtab.v1alpha1 import session_service_pb2, switch_pb2
from trimtab.v1alpha1.session_service_pb2_grpc import (
    SessionServiceServicer,
    add_SessionServiceServicer_to_server,
)
from trimtab_client import Placement, Version

WAIT = 20.0
_END = object()
_fences = itertools.count(1)


class Stream:
    """One session, as the server sees it."""

    def __init__(self, hello: Any, term: int) -> None:
        self.hello = hello
        self.term = term
        self.over = threading.Event()
        self.half_closed = threading.Event()
        self.reports = 0
        self._received: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._outgoing: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def send(self, *, term: int | None = None, **message: Any) -> None:
        term = self.term if term is None else term
        self._outgoing.put(session_service_pb2.SessionResponse(term=term, **message))

    def fail(
        self,
        code: grpc.StatusCode,
        details: str = "scripted",
        *,
        retry_after: float | None = None,
    ) -> None:
        self._outgoing.put(Failure(code, details, retry_after=retry_after))

    def end(self) -> None:
        self._outgoing.put(_END)

    def expect(self, kind: str) -> Any:
        """The next message, which has to be of this kind; reports come when they like."""
        while True:
            message = self._received.get(timeout=WAIT)
            got = message.WhichOneof("message")
            if got == kind:
                return getattr(message, kind)
            assert got == "report", f"{got} came, and {kind} should have: {message}"

    def fence(self) -> None:
        """Return when the worker has heard all that was sent, and has said nothing to it."""
        version = switch_pb2.Version(epoch=2**40, generation=next(_fences))
        self.send(offer=switch_pb2.Offer(version=version, digest=bytes(32)))
        assert self.expect("refused").version == version

    # What a server says most.

    def direct(self, interval: float = 1000.0, lease: float = 0.0) -> None:
        self.send(
            directive=session_service_pb2.Directive(
                report_interval_seconds=interval, lease_seconds=lease
            )
        )

    def acknowledge(self, seq: int) -> None:
        self.send(report_ack=session_service_pb2.ReportAck(seq=seq))

    def welcome(self, version: Version, placement: Placement) -> None:
        self.send(welcome=switch_pb2.Welcome(version=wire(version), digest=placement.digest))

    def commit(self, version: Version, placement: Placement) -> None:
        self.send(commit=switch_pb2.Commit(version=wire(version), digest=placement.digest))

    def abort(self, version: Version) -> None:
        self.send(abort=switch_pb2.Abort(version=wire(version)))

    # gRPC's threads.

    def read(self, requests: Iterator[Any]) -> None:
        try:
            for request in requests:
                self.reports += request.HasField("report")
                self._received.put(request)
            self.half_closed.set()
        except Exception:  # noqa: BLE001 - the worker went away
            self.leave()

    def leave(self) -> None:
        self.over.set()
        self._outgoing.put(_END)

    def answers(self, context: Any) -> Iterator[Any]:
        while (item := self._outgoing.get()) is not _END:
            if isinstance(item, Failure):
                item.abort(context)
            yield item


class ScriptedSessions(SessionServiceServicer):
    """Hands each session to the test."""

    def __init__(self, term: int) -> None:
        self.term = term
        self._streams: queue.SimpleQueue[Stream] = queue.SimpleQueue()

    def next_stream(self, timeout: float = WAIT) -> Stream:
        return self._streams.get(timeout=timeout)

    def Session(self, request_iterator: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        stream = Stream(next(request_iterator).hello, self.term)
        context.add_callback(stream.leave)
        threading.Thread(target=stream.read, args=(request_iterator,), daemon=True).start()
        self._streams.put(stream)
        yield from stream.answers(context)


class RunningSessions:
    """A scripted server that listens at `target`, and can be stopped and started again."""

    def __init__(self, credentials: grpc.ServerCredentials | None = None) -> None:
        self.port = 0
        self.term = 0
        self._credentials = credentials
        self.start()

    @property
    def target(self) -> str:
        return f"localhost:{self.port}"

    def start(self) -> None:
        self.term += 1
        self.sessions = ScriptedSessions(self.term)
        self._server = grpc.server(ThreadPoolExecutor(16))
        add_SessionServiceServicer_to_server(self.sessions, self._server)
        address = f"127.0.0.1:{self.port}"
        if self._credentials is None:
            self.port = self._server.add_insecure_port(address)
        else:
            self.port = self._server.add_secure_port(address, self._credentials)
        self._server.start()

    def stop(self) -> None:
        self._server.stop(None).wait()

    def next_stream(self, timeout: float = WAIT) -> Stream:
        return self.sessions.next_stream(timeout)

    def joined(self) -> Stream:
        """The next stream, with a directive and an epoch."""
        stream = self.next_stream()
        stream.direct()
        epoch = switch_pb2.Version(epoch=1)
        digest = stream.hello.placement.digest
        stream.send(welcome=switch_pb2.Welcome(version=epoch, digest=digest))
        return stream


@contextmanager
def serving_sessions(
    credentials: grpc.ServerCredentials | None = None,
) -> Iterator[RunningSessions]:
    running = RunningSessions(credentials)
    try:
        yield running
    finally:
        running.stop()


@contextmanager
def serving_bytes(answer: bytes) -> Iterator[str]:
    """A server at the target yielded that answers every Hello with these bytes."""

    def session(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        next(requests)
        yield answer

    handler = grpc.stream_stream_rpc_method_handler(session)
    name = "trimtab.v1alpha1.SessionService"
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(name, {"Session": handler})]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"localhost:{port}"
    finally:
        server.stop(None).wait()


def wire(version: Version) -> switch_pb2.Version:
    return switch_pb2.Version(epoch=version.epoch, generation=version.generation)


def version_of(message: Any) -> Version:
    return Version(message.epoch, message.generation)


def counts_of(report: Any) -> list[list[int]]:
    return array_of(report.counts).tolist()


def offer_message(
    version: Version, base_version: Version, base: Placement, new: Placement, gpus: tuple[int, ...]
) -> switch_pb2.Offer:
    """What a server asks of the worker that owns `gpus`, found slot by slot."""
    per_gpu = base.phy2log.shape[1] // base.num_gpus
    layers = [i for i in range(len(base.phy2log)) if (base.phy2log[i] != new.phy2log[i]).any()]
    receives, sources, sends, copies = [], [], [], []
    for layer in layers:
        old_R, new_R = base.phy2log[layer].tolist(), new.phy2log[layer].tolist()
        arrived: dict[tuple[int, int], int] = {}
        for slot, expert in enumerate(new_R):
            gpu = slot // per_gpu
            if old_R[slot] == expert:
                continue
            here = [r for r in range(gpu * per_gpu, (gpu + 1) * per_gpu) if old_R[r] == expert]
            near = here[0] if here else arrived.get((gpu, expert))
            if near is not None:
                if gpu in gpus:
                    copies.append([layer, near, slot, expert])
                continue
            arrived[gpu, expert] = slot
            holders = [r for r, held in enumerate(old_R) if held == expert]
            holding = sorted({r // per_gpu for r in holders})
            if gpu in gpus:
                receives.append([layer, slot, expert])
                sources.append(holding)
            elif holding[0] in gpus:
                sends.append([layer, holders[0], slot, expert])
    widest = max(map(len, sources), default=0)
    padded = [row + [-1] * (widest - len(row)) for row in sources]
    return switch_pb2.Offer(
        version=wire(version),
        digest=new.digest,
        base=wire(base_version),
        base_digest=base.digest,
        layers=tensor_of(np.array(layers)),
        old_rows=tensor_of(base.phy2log[layers]),
        new_rows=tensor_of(new.phy2log[layers]),
        receives=_rows(receives),
        receive_sources=_rows(padded),
        sends=_rows(sends),
        copies=_rows(copies),
        bytes=len(receives) * 100,
    )


def _rows(rows: list[list[int]]) -> Any:
    return tensor_of(np.array(rows)) if rows else None
