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

from tests.client.service import Failure
from trimtab.v1alpha1 import switch_pb2
from trimtab.v1alpha1.session_service_pb2_grpc import (
    SessionServiceServicer,
    add_SessionServiceServicer_to_server,
)
from trimtab_client import Placement, Version
from trimtab_protocol.messages import Directive, Offer, ReportAck, ServerMessage, Welcome
from trimtab_protocol.wire.requests import decode_answer, decode_hello, decode_report
from trimtab_protocol.wire.responses import Response, encode_response
from trimtab_server.domain.topology import Topology
from trimtab_server.rollout.differences import Differences

WAIT = 20.0
_END = object()
_fences = itertools.count(1)


class Stream:
    """One session, as the server sees it."""

    def __init__(self, hello: Any, term: int) -> None:
        self.hello, self.setup = decode_hello(hello)
        self.term = term
        self.over = threading.Event()
        self.half_closed = threading.Event()
        self.reports = 0
        self._received: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._outgoing: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def tell(self, message: ServerMessage) -> None:
        self._outgoing.put(encode_response(self.term, message))

    def tell_raw(self, **fields: Any) -> None:
        """Send a message that no server would send."""
        self._outgoing.put(Response(term=self.term, **fields))

    def direct(self, interval: float = 1000.0, lease: float = 0.0) -> None:
        self.tell(Directive(interval, lease))

    def acknowledge(self, seq: int) -> None:
        self.tell(ReportAck(seq))

    def fail(
        self, code: grpc.StatusCode, details: str = "scripted", *, retry_after: float | None = None
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
                break
            assert got == "report", f"{got} came, and {kind} should have: {message}"
        if kind == "report":
            return decode_report(message.report)
        return message.goodbye if kind == "goodbye" else decode_answer(message)

    def fence(self) -> None:
        """Return when the worker has heard all that was sent, and has said nothing to it."""
        version = Version(2**40, next(_fences))
        number = switch_pb2.Version(epoch=version.epoch, generation=version.generation)
        self.tell_raw(offer=switch_pb2.Offer(version=number, digest=bytes(32)))
        assert self.expect("refused").version == version

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
        stream.tell(Welcome(Version(1, 0), stream.hello.placement.digest))
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


def offer_of(
    version: Version, base_version: Version, base: Placement, new: Placement, gpus: tuple[int, ...]
) -> Offer:
    """What a server asks of the worker that owns `gpus`."""
    topology = Topology(base.phy2log.shape[1], base.num_gpus)
    transfers = Differences.between(base, new, topology, 100).for_worker(gpus)
    return Offer(version, new.digest, base_version, base.digest, transfers)
