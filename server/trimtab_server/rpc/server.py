"""The gRPC endpoint: its services, health, TLS, and how it drains and stops."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection

from trimtab.v1 import solver_service_pb2_grpc
from trimtab.v1alpha1 import (
    deployment_service_pb2_grpc,
    engine_service_pb2_grpc,
    session_service_pb2_grpc,
)
from trimtab_server.domain.errors import invalid, require
from trimtab_server.engine.config import SessionConfig
from trimtab_server.engine.deployments import Deployments
from trimtab_server.engine.observer import Observer
from trimtab_server.engine.operations import Operations
from trimtab_server.engine.planner import Planner
from trimtab_server.rpc.admission import ENGINES, HEALTH, OPERATORS, SESSIONS, SOLVER, Admission
from trimtab_server.rpc.config import RpcConfig
from trimtab_server.rpc.deployment_servicer import DeploymentServicer
from trimtab_server.rpc.engine_servicer import EngineServicer
from trimtab_server.rpc.interceptor import CallInterceptor
from trimtab_server.rpc.servicer import SolverServicer
from trimtab_server.rpc.session_servicer import SessionServicer
from trimtab_server.rpc.tls import server_credentials

SERVICES = (SOLVER, SESSIONS, OPERATORS, ENGINES)
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

_FLUSH_S = 0.5
"""Time to send the last answers. Open health watches use all of it: nothing else ends them."""


class RpcServer:
    """Listens after `start`, accepts calls after `open`, refuses new calls after `drain`.

    Attributes:
        admission: counts the calls that run, and limits them.
    """

    def __init__(
        self,
        config: RpcConfig,
        planner: Planner,
        sessions: SessionConfig,
        deployments: Deployments,
        operations: Operations,
        observer: Observer,
    ) -> None:
        self._config = config
        self._deployments = deployments
        refused = partial(deployments.hellos.refuse, "", "")
        self.admission = admission = Admission(config, sessions, refused)
        self._health = health_aio.HealthServicer()
        self._is_open = False
        self._store_changed = asyncio.Event()
        self._following: asyncio.Task[None] | None = None
        self._server = grpc.aio.server(
            interceptors=[CallInterceptor(observer, admission, config.idle_stream_seconds)],
            options=_options(config),
        )
        solver_service_pb2_grpc.add_SolverServiceServicer_to_server(
            SolverServicer(planner, admission, observer, config.idle_stream_seconds), self._server
        )
        session_service_pb2_grpc.add_SessionServiceServicer_to_server(
            SessionServicer(deployments, sessions, admission), self._server
        )
        self._operators = DeploymentServicer(deployments, operations, planner, admission)
        deployment_service_pb2_grpc.add_DeploymentServiceServicer_to_server(
            self._operators, self._server
        )
        engine_service_pb2_grpc.add_EngineServiceServicer_to_server(
            EngineServicer(deployments), self._server
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if config.reflection:
            names = (*SERVICES, HEALTH, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, self._server)

    async def start(self) -> str:
        """Listen, but do not serve yet. Returns the address, with the actual port.

        Raises:
            InvalidArgumentError: the address or the TLS files cannot be used.
        """
        await self._set_health()
        address = self._bind()
        await self._server.start()
        self._deployments.store_health.subscribe(self._store_changed.set)
        self._following = asyncio.create_task(self._follow_store())
        return address

    async def open(self) -> None:
        """Accept calls, and report SERVING to health checks."""
        self.admission.open()
        self._is_open = True
        await self._set_health()

    async def drain(self) -> None:
        """Refuse new calls and messages. Returns when the running calls have ended."""
        self.admission.drain()
        await self._health.enter_graceful_shutdown()
        await self._deployments.drain()
        await self.admission.empty()

    async def stop(self, *, at_once: bool) -> None:
        """Stop listening and end all calls, after a short time unless `at_once`."""
        await self._server.stop(None if at_once else _FLUSH_S)
        await self._operators.wait_idle()
        if self._following is not None:
            self._following.cancel()

    async def _follow_store(self) -> None:
        while True:
            await self._store_changed.wait()
            self._store_changed.clear()
            await self._set_health()

    async def _set_health(self) -> None:
        """Once the server drains, this does nothing."""
        fails = self._deployments.store_health.failure is not None
        for name in ("", *SERVICES):
            serves = self._is_open and (name == SOLVER or not fails)
            await self._health.set(name, _SERVING if serves else _NOT_SERVING)

    def _bind(self) -> str:
        listen = self._config.listen
        if listen.startswith("unix:"):
            folder = Path(listen.removeprefix("unix:")).resolve().parent
            require(folder.is_dir(), "listen", f"there is no folder {folder} for {listen}")
        credentials = server_credentials(self._config)
        try:
            if credentials is None:
                port = self._server.add_insecure_port(listen)
            else:
                port = self._server.add_secure_port(listen, credentials)
        except RuntimeError as error:
            raise invalid("listen", f"cannot listen on {listen}: {error}") from error
        if listen.startswith("unix:"):
            return listen
        return f"{listen.rpartition(':')[0]}:{port}"


def _options(config: RpcConfig) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", config.max_message_bytes),
        ("grpc.max_send_message_length", config.max_message_bytes),
        # Otherwise a second server could start on the same port and take some of the calls.
        ("grpc.so_reuseport", 0),
        # Notice peers that have vanished, and let idle clients ping.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ]
