"""A scripted server on a real socket, for what a real one cannot be made to do on demand.

It speaks the real contract, and its placements are valid, but it does not solve: every
load gets the untouched layout, rotated by the number of loads before it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from trimtab.v1 import error_pb2, placement_pb2, solver_service_pb2, tensor_pb2
from trimtab.v1.solver_service_pb2_grpc import (
    SolverServiceServicer,
    add_SolverServiceServicer_to_server,
)
from trimtab.v1alpha1 import deployment_service_pb2
from trimtab.v1alpha1.deployment_service_pb2_grpc import (
    DeploymentServiceServicer,
    add_DeploymentServiceServicer_to_server,
)
from trimtab_client import Placement

_NUMPY = {1: "<f4", 2: "<f8", 3: "<i4", 4: "<i8"}


@dataclass(frozen=True)
class Failure:
    """How a call is to fail."""

    code: grpc.StatusCode
    details: str = "scripted"
    violations: tuple[tuple[str, str], ...] = ()
    retry_after: float | None = None

    def status(self) -> status_pb2.Status:
        """The google.rpc.Status, made with the original packages."""
        status = status_pb2.Status(code=self.code.value[0], message=self.details)
        if self.violations:
            bad_request = error_details_pb2.BadRequest()
            for name, description in self.violations:
                bad_request.field_violations.add(field=name, description=description)
            status.details.add().Pack(bad_request)
        if self.retry_after is not None:
            retry_info = error_details_pb2.RetryInfo(retry_delay=duration(self.retry_after))
            status.details.add().Pack(retry_info)
        return status

    def abort(self, context: grpc.ServicerContext) -> None:
        status = self.status()
        if status.details:
            context.set_trailing_metadata(
                (("grpc-status-details-bin", status.SerializeToString()),)
            )
        context.abort(self.code, self.details)


def duration(seconds: float) -> Duration:
    whole = int(seconds)
    return Duration(seconds=whole, nanos=round((seconds - whole) * 1e9))


def array_of(tensor: tensor_pb2.Tensor) -> np.ndarray:
    return np.frombuffer(tensor.data, _NUMPY[tensor.data_type]).reshape(tuple(tensor.shape))


def tensor_of(array: np.ndarray, data_type: int = tensor_pb2.DATA_TYPE_INT32) -> Any:
    data = array.astype(_NUMPY[data_type]).tobytes()
    return tensor_pb2.Tensor(data_type=data_type, shape=array.shape, data=data)


def placed(load: np.ndarray, topology: Any, turn: int) -> solver_service_pb2.PlaceResponse:
    slots = (np.arange(topology.num_replicas) + turn) % load.shape[1]
    placement = Placement.of(np.tile(slots, (load.shape[0], 1)), load.shape[1], topology.num_gpus)
    balance = placement.balance(load)
    return solver_service_pb2.PlaceResponse(
        placement=placement_pb2.Placement(
            phy2log=tensor_of(placement.phy2log), digest=placement.digest
        ),
        after=placement_pb2.Balance(
            gpu_load=tensor_of(balance.gpu_load, tensor_pb2.DATA_TYPE_FLOAT64),
            imbalance=tensor_of(balance.imbalance, tensor_pb2.DATA_TYPE_FLOAT64),
            bound=tensor_of(balance.bound, tensor_pb2.DATA_TYPE_FLOAT64),
        ),
    )


@dataclass
class ScriptedService(SolverServiceServicer):
    """Answers as scripted, and remembers what it was asked.

    `failures`: how the next unary calls fail, one each. `answer`: changes each PlaceResponse
    before it leaves. `release`: while clear, answers wait. `fail_stream_at`: the number of
    loads after which a stream fails, and how (None: it ends). `extra_answers`: how often a
    stream answers each load once more.
    """

    failures: deque[Failure] = field(default_factory=deque)
    answer: Callable[[Any], None] = lambda response: None
    release: threading.Event = field(default_factory=threading.Event)
    fail_stream_at: tuple[int, Failure | None] | None = None
    extra_answers: int = 0
    requests: list[Any] = field(default_factory=list)
    remaining: list[float] = field(default_factory=list)
    received: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    stream_over: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.release.set()

    def Pack(self, request: Any, context: Any) -> Any:  # noqa: N802
        self._begin(request, context)
        weight_Xn = array_of(request.weight)
        pack_index = np.tile(np.arange(weight_Xn.shape[1]) % request.num_packs, (len(weight_Xn), 1))
        rank = np.tile(np.arange(weight_Xn.shape[1]) // request.num_packs, (len(weight_Xn), 1))
        return solver_service_pb2.PackResponse(
            pack_index=tensor_of(pack_index), rank_in_pack=tensor_of(rank)
        )

    def Place(self, request: Any, context: Any) -> Any:  # noqa: N802
        self._begin(request, context)
        response = placed(array_of(request.load), request.topology, 0)
        self.answer(response)
        return response

    def PlaceStream(self, request_iterator: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        context.add_callback(self.stream_over.set)
        config = next(request_iterator).config
        self.requests.append(config)
        for turn, request in enumerate(request_iterator):
            if self.fail_stream_at is not None and turn == self.fail_stream_at[0]:
                failure = self.fail_stream_at[1]
                if failure is None:
                    return
                failure.abort(context)
            self.requests.append(request.load)
            self.received.release()
            self.release.wait()
            for _ in range(1 + self.extra_answers):
                yield self._stream_answer(request.load, config.topology, turn)

    def _begin(self, request: Any, context: Any) -> None:
        self.requests.append(request)
        self.remaining.append(context.time_remaining())
        self.received.release()
        while not self.release.wait(0.01) and context.is_active():
            pass
        if self.failures:
            self.failures.popleft().abort(context)

    def _stream_answer(self, message: Any, topology: Any, turn: int) -> Any:
        load = array_of(message.load)
        if load.min() < 0:
            error = error_pb2.Error(
                code=grpc.StatusCode.INVALID_ARGUMENT.value[0],
                message="load: is negative",
                field_violations=[{"field": "load[0, 0]", "description": "-1 is negative"}],
                retry_delay=duration(0.5),
            )
            return solver_service_pb2.PlaceStreamResponse(id=message.id, error=error)
        placement = placed(load, topology, turn)
        answer = solver_service_pb2.PlaceStreamResponse(id=message.id, placed=placement)
        self.answer(answer)
        return answer


HOLD = "hold"
"""A step of a watch: it stays open until its reader ends it."""


@dataclass
class ScriptedDeployments(DeploymentServiceServicer):
    """Fails as scripted, then answers with what is to be answered: once each if that is a deque.

    `watches`: what the next watches do, one each: answers, then how they end, which is by
    themselves unless the last step is a failure or HOLD. `held`: released when one comes to
    HOLD; `watch_over`: when one is over.
    """

    failures: deque[Failure] = field(default_factory=deque)
    answer: Any = field(default_factory=deployment_service_pb2.TriggerResponse)
    requests: list[Any] = field(default_factory=list)
    watches: deque[list[Any]] = field(default_factory=deque)
    held: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    watch_over: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def WatchPlacement(self, request: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        self.requests.append(request)
        context.add_callback(self.watch_over.release)
        for step in self.watches.popleft():
            if isinstance(step, Failure):
                step.abort(context)
            elif step == HOLD:
                over = threading.Event()
                if context.add_callback(over.set):
                    self.held.release()
                    over.wait()
            else:
                yield step

    def _answer(self, request: Any, context: Any) -> Any:
        self.requests.append(request)
        if self.failures:
            self.failures.popleft().abort(context)
        return self.answer.popleft() if isinstance(self.answer, deque) else self.answer

    CreateDeployment = GetDeployment = ListDeployments = UpdatePolicy = _answer
    DeleteDeployment = ForgetLoad = GetPlacement = ListDecisions = _answer
    Trigger = Pause = Resume = Pin = Unpin = RollBack = GetServerStatus = _answer


class WatchedHealth(health.HealthServicer):
    """The standard one; `asked` is released with each check."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Semaphore(0)

    def Check(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.asked.release()
        return super().Check(request, context)


@dataclass
class RunningService:
    """A scripted server that listens at `target`."""

    target: str
    solver: ScriptedService
    deployments: ScriptedDeployments
    health: WatchedHealth


def health_status(name: str) -> Any:
    return health_pb2.HealthCheckResponse.ServingStatus.Value(name)


@contextmanager
def serving(
    address: str = "127.0.0.1:0",
    *,
    credentials: grpc.ServerCredentials | None = None,
    with_health: bool = True,
) -> Iterator[RunningService]:
    server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.max_receive_message_length", -1)])
    solver = ScriptedService()
    add_SolverServiceServicer_to_server(solver, server)
    deployments = ScriptedDeployments()
    add_DeploymentServiceServicer_to_server(deployments, server)
    health_service = WatchedHealth()
    if with_health:
        health_pb2_grpc.add_HealthServicer_to_server(health_service, server)
    if credentials is None:
        port = server.add_insecure_port(address)
    else:
        port = server.add_secure_port(address, credentials)
    server.start()
    target = address if address.startswith("unix:") else f"localhost:{port}"
    try:
        yield RunningService(target, solver, deployments, health_service)
    finally:
        solver.release.set()
        server.stop(None).wait()
