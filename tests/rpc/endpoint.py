"""A gRPC endpoint on a free port, with a recording observer, and requests to send to it."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import pytest
import torch
from google.rpc import error_details_pb2, status_pb2

from tests.recording import Recording
from tests.servers import busy, make_config
from trimtab.v1 import solver_service_pb2 as pb
from trimtab.v1 import solver_service_pb2_grpc, topology_pb2
from trimtab_protocol.wire.tensors import encode_tensor
from trimtab_server.engine.deployments import Deployments
from trimtab_server.engine.operations import Operations
from trimtab_server.engine.planner import Planner
from trimtab_server.engine.queue import SolverQueue
from trimtab_server.engine.store_thread import StoreThread
from trimtab_server.history.config import HistoryConfig
from trimtab_server.history.history import History
from trimtab_server.rpc.server import RpcServer
from trimtab_server.solver.backends.reference.backend import Reference
from trimtab_server.store.memory import MemoryStore

PKI = Path(__file__).parents[1] / "client" / "tls"
"""A folder with the certificate of an authority, certificates and keys."""

TLS = {"tls_cert": str(PKI / "server.pem"), "tls_key": str(PKI / "server.key")}
"""Settings of a server with TLS."""

NO_ROOM = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 1024))
"""Options of a channel, so that a peer that does not read soon holds up who writes to it."""

Stub = Any  # SolverServiceAsyncStub, a name that exists for type checkers only


@dataclass(frozen=True)
class Endpoint:
    """The parts of a running endpoint that tests use."""

    server: RpcServer
    address: str
    queue: SolverQueue
    observer: Recording
    channel: grpc.aio.Channel
    stub: Stub
    deployments: Deployments

    @asynccontextmanager
    async def busy(self) -> AsyncIterator[threading.Event]:
        """The solver works until the event is set; reports from before are forgotten."""
        async with busy(self.queue) as release:
            self.observer.events.clear()
            yield release


@asynccontextmanager
async def endpoint_of(*, opened: bool = True, **settings: Any) -> AsyncIterator[Endpoint]:
    """An endpoint with these settings; where `opened` is false, it still warms up."""
    config = make_config(**settings)
    observer = Recording()
    queue = SolverQueue(config.solver.queue_size, observer)
    planner = Planner(queue, Reference(), torch.device("cpu"), config.limits, "fast", observer)
    store = StoreThread(MemoryStore, probe_seconds=config.sessions.save_seconds)
    history = History(HistoryConfig())
    deployments = Deployments(config.sessions, store, history, planner=planner)
    await deployments.open()
    operations = Operations(store, history, config.sessions.max_operations)
    server = RpcServer(config.rpc, planner, config.sessions, deployments, operations, observer)
    address = await server.start()
    if opened:
        await server.open()
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            stub = solver_service_pb2_grpc.SolverServiceStub(channel)
            yield Endpoint(server, address, queue, observer, channel, stub, deployments)
    finally:
        await server.stop(at_once=True)
        await queue.close()
        await deployments.close()


def skewed_load(seed: int = 0, layers: int = 3, experts: int = 16) -> npt.NDArray[np.float64]:
    """A skewed load."""
    return np.random.default_rng(seed).gamma(0.5, 100, (layers, experts))


def place_request(**changes: Any) -> pb.PlaceRequest:
    """A valid request for 20 slots on 4 GPUs, with these fields set otherwise."""
    fields: dict[str, Any] = {
        "load": encode_tensor(skewed_load(), "f8"),
        "topology": topology_pb2.Topology(num_replicas=20, num_gpus=4),
    }
    return pb.PlaceRequest(**{**fields, **changes})


def pack_request(**changes: Any) -> pb.PackRequest:
    """A valid request to put 16 items into 4 packs, with these fields set otherwise."""
    fields: dict[str, Any] = {"weight": encode_tensor(skewed_load(), "f8"), "num_packs": 4}
    return pb.PackRequest(**{**fields, **changes})


async def failure(call: Awaitable[Any], code: str) -> grpc.aio.AioRpcError:
    """The error of a call that fails with this code."""
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call
    assert failed.value.code().name == code, failed.value
    return failed.value


def rich_status(error: grpc.RpcError) -> status_pb2.Status:
    """The google.rpc.Status in the trailers of a failed call."""
    trailers = dict(error.trailing_metadata())
    return status_pb2.Status.FromString(trailers["grpc-status-details-bin"])


def violations(error: grpc.RpcError) -> dict[str, str]:
    """Description of each field at fault, by path."""
    bad = error_details_pb2.BadRequest()
    assert rich_status(error).details[0].Unpack(bad)
    return {v.field: v.description for v in bad.field_violations}


def retry_seconds(error: grpc.RpcError) -> float:
    """The delay that the server asks for."""
    info = error_details_pb2.RetryInfo()
    assert rich_status(error).details[0].Unpack(info)
    return info.retry_delay.ToMilliseconds() / 1000
