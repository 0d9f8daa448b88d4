"""The method of SessionService. One task reads a worker's stream, another one writes it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog

from trimtab.v1alpha1 import session_service_pb2, session_service_pb2_grpc
from trimtab_protocol.messages import Directive, Drain, ReportAck
from trimtab_protocol.wire import requests
from trimtab_protocol.wire.responses import encode_response
from trimtab_server.domain.errors import (
    TrimtabError,
    UnavailableError,
    invalid,
    malformed_as_invalid,
)
from trimtab_server.engine.config import SessionConfig
from trimtab_server.engine.departure import BROKEN, ENDED, Departure, printable
from trimtab_server.engine.deployment import Deployment
from trimtab_server.engine.deployments import Deployments
from trimtab_server.engine.sessions import WorkerSession
from trimtab_server.rollout.effects import GroupOffer
from trimtab_server.rpc.admission import Admission
from trimtab_server.rpc.session_decode import decode_hello
from trimtab_server.rpc.session_stream import SessionStream

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_MAX_REASON = 500

_RETRY_AFTER_S = 1.0

Context = Any  # grpc.aio.ServicerContext of a stream


@dataclass
class _Caller:
    """Who asks for a session, as far as it is known."""

    deployment: str = ""
    worker: str = ""
    has_joined: bool = False


class SessionServicer(session_service_pb2_grpc.SessionServiceServicer):
    """Raises the server's own errors, which the interceptor converts to statuses."""

    def __init__(
        self, deployments: Deployments, config: SessionConfig, admission: Admission
    ) -> None:
        self._deployments = deployments
        self._config = config
        self._admission = admission

    # The stub declares a generator. This method reads and writes at the same time instead.
    async def Session(  # type: ignore[override]  # noqa: N802
        self, request_iterator: Any, context: Context
    ) -> None:
        """Serves one worker until either side ends the session."""
        stream = SessionStream(context, self._config)
        caller = _Caller()
        try:
            joined = await self._join(stream, caller)
            if joined is not None:
                await self._serve(*joined, stream)
        except TrimtabError as error:
            if not caller.has_joined:
                reason = str(error)[:_MAX_REASON]
                self._deployments.hellos.refuse(caller.deployment, caller.worker, reason)
            raise

    async def _join(
        self, stream: SessionStream, caller: _Caller
    ) -> tuple[Deployment, WorkerSession] | None:
        """Begin the session that a worker asks for; None if its stream ends before it asks."""
        hello = await self._hello(stream)
        if hello is None:
            return None
        caller.deployment, caller.worker = printable(hello.deployment), printable(hello.worker)
        self._deployments.hellos.admit(caller.deployment, caller.worker)
        # A Hello may be large, and checking it may take long, so a thread does it.
        request = await asyncio.to_thread(decode_hello, hello)
        joined = await self._deployments.join(request)
        caller.has_joined = True
        return joined

    async def _serve(
        self, deployment: Deployment, session: WorkerSession, stream: SessionStream
    ) -> None:
        departure = BROKEN
        try:
            await stream.open()
            departure = await self._converse(deployment, session, stream)
        except TrimtabError as error:
            departure = Departure(str(error)[:_MAX_REASON])
            raise
        finally:
            self._deployments.leave(deployment, session, departure)

    async def _hello(self, stream: SessionStream) -> session_service_pb2.Hello | None:
        """The first message; None if the stream ends before it. Does not delay a drain."""
        reading = asyncio.ensure_future(stream.read())
        draining = asyncio.ensure_future(self._admission.draining())
        try:
            await asyncio.wait((reading, draining), return_when=asyncio.FIRST_COMPLETED)
            first: Any = await (reading if reading.done() else draining)
        finally:
            await _end(reading, draining)
        if first is None:
            return None
        self._count(first)
        if not first.HasField("hello"):
            raise invalid("hello", "has to be the first message of the stream")
        hello: session_service_pb2.Hello = first.hello
        return hello

    async def _converse(
        self, deployment: Deployment, session: WorkerSession, stream: SessionStream
    ) -> Departure:
        """Read and write at once, until one of them ends or somebody ends the session."""
        session.outbox.put("directive", None)
        loop = asyncio.get_running_loop()
        tasks = [
            loop.create_task(self._listen(deployment, session, stream)),
            loop.create_task(self._write(deployment, session, stream)),
            loop.create_task(session.outbox.wait_closed()),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            results = await _end(*tasks)
        for result in results:
            if isinstance(result, Exception):
                raise result
        heard: Departure = results[0]
        return heard

    async def _listen(
        self, deployment: Deployment, session: WorkerSession, stream: SessionStream
    ) -> Departure:
        """Process the worker's messages until its goodbye or the end of its stream."""
        delayed = partial(self._delayed, deployment, session, stream)
        while True:
            await stream.wait_for_rate(delayed)
            message = await stream.read()
            if message is None:
                return ENDED
            self._count(message)
            match message.WhichOneof("message"):
                case "report":
                    with malformed_as_invalid():
                        report = requests.decode_report(message.report)
                    session.outbox.put("ack", deployment.workers.report(session, report))
                case "goodbye":
                    return Departure.goodbye(message.goodbye.reason)
                case "hello":
                    raise invalid("hello", "may be sent only once, as the first message")
                case _:
                    with malformed_as_invalid():
                        answer = requests.decode_answer(message)
                    await deployment.workers.answer(session, answer)

    async def _write(
        self, deployment: Deployment, session: WorkerSession, stream: SessionStream
    ) -> None:
        """Send the messages of the outbox. Raises the error that the outbox is closed with."""
        while True:
            kind, message = await session.outbox.take()
            await stream.write(self._encoded(deployment, session, kind, message))
            if kind == "drain":
                raise UnavailableError("the server is shutting down", _RETRY_AFTER_S)

    def _encoded(
        self, deployment: Deployment, session: WorkerSession, kind: str, message: Any
    ) -> session_service_pb2.SessionResponse:
        term, config = self._deployments.term, self._config
        match kind:
            case "directive":
                message = Directive(config.report_seconds, config.lease_seconds)
            case "ack":
                message = ReportAck(message)
            case "drain":
                # 0 seconds: workers carry out a committed switch without the server.
                message = Drain(0.0)
            case _ if isinstance(message, GroupOffer):
                message = message.with_transfers(deployment.workers.contents(message, session))
        return encode_response(term, message)

    def _delayed(
        self, deployment: Deployment, session: WorkerSession, stream: SessionStream
    ) -> None:
        self._deployments.observer.message_delayed(deployment.name)
        if stream.delays == 1:
            log.warning(
                "too many messages",
                deployment=deployment.name,
                worker=session.request.hello.worker,
                setting="messages_per_second",
                most=self._config.messages_per_second,
            )

    def _count(self, message: session_service_pb2.SessionRequest) -> None:
        self._deployments.observer.message_received(message.WhichOneof("message") or "none")


async def _end(*tasks: asyncio.Future[Any]) -> list[Any]:
    """Cancel the tasks that have not ended. Returns the results and exceptions of all."""
    for task in tasks:
        task.cancel()
    return await asyncio.gather(*tasks, return_exceptions=True)
