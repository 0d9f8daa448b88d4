"""Which gate each call passes, so that no kind of call, and no peer, can shut out the others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import NoReturn

from grpc_health.v1 import health_pb2

from trimtab.v1 import solver_service_pb2
from trimtab.v1alpha1 import deployment_service_pb2, engine_service_pb2, session_service_pb2
from trimtab_server.domain.errors import TrimtabError, UnavailableError
from trimtab_server.engine.config import SessionConfig
from trimtab_server.rpc.config import RpcConfig
from trimtab_server.rpc.gate import Capacity, Gate
from trimtab_server.rpc.peers import peer_key

SOLVER = solver_service_pb2.DESCRIPTOR.services_by_name["SolverService"].full_name
SESSIONS = session_service_pb2.DESCRIPTOR.services_by_name["SessionService"].full_name
OPERATORS = deployment_service_pb2.DESCRIPTOR.services_by_name["DeploymentService"].full_name
ENGINES = engine_service_pb2.DESCRIPTOR.services_by_name["EngineService"].full_name
HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name

_WATCH = f"{OPERATORS}/WatchPlacement"
TRIGGER = f"{OPERATORS}/Trigger"
"""It may wait for as long as its caller likes, so it takes no room of other operators' calls."""

_UNCOUNTED = {f"{HEALTH}/Check", f"{OPERATORS}/GetServerStatus"}
"""These are answered at once, and have to be, whatever the server is busy with."""

_RETRY_AFTER_S = 1.0


class Admission:
    """Admits the calls of all services. All methods run on the event loop.

    Args:
        config: settings of the network.
        sessions: settings of sessions.
        session_refused: called with the reason when a call that would begin a session is refused.
    """

    def __init__(
        self,
        config: RpcConfig,
        sessions: SessionConfig,
        session_refused: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._session_refused = session_refused
        capacity = partial(Capacity, peer_share=config.peer_share)
        calls = capacity(config.max_concurrent_rpcs, "max_concurrent_rpcs")
        operators = capacity(config.max_operator_rpcs, "max_operator_rpcs")
        watches = capacity(config.max_watches, "max_watches")
        self._gates = {
            SOLVER: Gate(calls),
            ENGINES: Gate(calls),
            OPERATORS: Gate(operators),
            TRIGGER: Gate(operators),
            SESSIONS: Gate(capacity(sessions.max_sessions, "max_sessions")),
            _WATCH: Gate(watches),
        }
        # Watches of health, and reflection. These are admitted while the server warms up or
        # drains too, and nobody waits for their end: only the server's end ends such a watch.
        self._health, self._reflection = Gate(watches), Gate(watches)
        self._health.open()
        self._reflection.open()
        self._draining = asyncio.Event()

    def admitted(self, method: str, peer: str) -> AbstractContextManager[None]:
        """A context in which one call runs. `method`: service/method; `peer`: as gRPC has it.

        Raises:
            UnavailableError: the server warms up or drains.
            ResourceExhaustedError: too many calls of this kind are running, in all or of this peer.
        """
        if method in _UNCOUNTED:
            return nullcontext()
        admitted = self._gate_of(method).admitted(peer_key(peer))
        return self._counted(admitted) if method.startswith(f"{SESSIONS}/") else admitted

    def running(self, method: str) -> int:
        """Number of calls that run of this kind: a service, or a method with a limit of its own."""
        return self._gate_of(method).running

    def open(self) -> None:
        """Admit calls, unless `drain` was called before."""
        for gate in self._gates.values():
            gate.open()

    def drain(self) -> None:
        """Admit no more calls, for good."""
        for gate in self._gates.values():
            gate.drain()
        self._draining.set()

    async def draining(self) -> NoReturn:
        """Wait until the server drains, then raise UnavailableError to end the caller's call."""
        await self._draining.wait()
        raise UnavailableError("the server is shutting down", _RETRY_AFTER_S)

    async def empty(self) -> None:
        """Return once no call runs."""
        for gate in self._gates.values():
            await gate.empty()

    @contextmanager
    def _counted(self, admitted: AbstractContextManager[None]) -> Iterator[None]:
        with ExitStack() as stack:
            try:
                stack.enter_context(admitted)
            except TrimtabError as error:
                self._session_refused(str(error))
                raise
            yield

    def _gate_of(self, method: str) -> Gate:
        service = method.partition("/")[0]
        aside = self._health if service == HEALTH else self._reflection
        return self._gates.get(method) or self._gates.get(service, aside)
