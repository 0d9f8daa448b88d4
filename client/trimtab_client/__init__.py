"""The Trimtab client: asks a server to place the experts of a Mixture-of-Experts model.

    from trimtab_client import Client, Topology

    with Client("localhost:50051") as client:
        result = client.place(load, Topology(num_replicas=288, num_gpus=32))
        result.placement.phy2log  # the expert in each slot, int32 [L, R]

`Client` is for threads and plain functions, `AsyncClient` for asyncio. Arrays go in as
anything that numpy or torch understands, and come out as numpy arrays. Legend for all shapes:
L layers, E logical experts, R expert slots, G GPUs, X replicas, M moves, K layers of a switch.

`WorkerSession` and `AsyncWorkerSession` are for inference engines, which report loads and
take new placements all at the same step; `EngineSession` and `AsyncEngineSession` are for
those that switch by themselves. They, and what belongs to them, are loaded when first used:
most programs that import this package are not engines.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from trimtab_client.aio import AsyncClient
from trimtab_client.channel import TlsOptions
from trimtab_client.client import Client
from trimtab_client.deployments import (
    BalanceStatus,
    Deployment,
    DeploymentSpec,
    DeploymentStatus,
    Imbalance,
    PlacementCause,
    RollbackPoint,
    ServedPlacement,
    ServerStatus,
    WorkerStatus,
)
from trimtab_client.exceptions import (
    AbortedError,
    AccessDeniedError,
    AlreadyExistsError,
    CallCancelledError,
    ClientClosedError,
    DeadlineExceededError,
    FailedPreconditionError,
    FieldViolation,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    ProtocolError,
    ResourceExhaustedError,
    TrimtabError,
    UnavailableError,
    UnimplementedError,
)
from trimtab_client.operations import Operation
from trimtab_client.options import Effort, MoveBudget, Objective, SolverOptions, Topology
from trimtab_client.placement import Balance, Placement
from trimtab_client.policies import Certainty, Decision, Judgement, Mode, Policy, Reason
from trimtab_client.results import Moves, PackResult, PlaceResult, StreamItem, TriggerResult
from trimtab_client.retry import RetryPolicy
from trimtab_client.wire import ServingStatus
from trimtab_protocol.messages import Scope, Split, SwitchedBy, Transfer, Transfers
from trimtab_protocol.operations import OperationKind
from trimtab_protocol.version import Version

if TYPE_CHECKING:
    from trimtab_client.engine import (
        AsyncEngineSession,
        EngineAnswer,
        EngineOptions,
        EngineSession,
    )
    from trimtab_client.worker.aio import AsyncWorkerSession
    from trimtab_client.worker.offer import Flip, StateEvent, SwitchOffer
    from trimtab_client.worker.options import WorkerOptions
    from trimtab_client.worker.session import WorkerSession

_LATER = {
    "AsyncEngineSession": "engine",
    "AsyncWorkerSession": "worker.aio",
    "EngineAnswer": "engine",
    "EngineOptions": "engine",
    "EngineSession": "engine",
    "Flip": "worker.offer",
    "StateEvent": "worker.offer",
    "SwitchOffer": "worker.offer",
    "WorkerOptions": "worker.options",
    "WorkerSession": "worker.session",
}
"""Modules of `trimtab_client` by what is loaded from them when first used."""

__version__ = "0.1.0"

# fmt: off
__all__ = [
    "AbortedError", "AccessDeniedError", "AlreadyExistsError", "AsyncClient", "AsyncEngineSession",
    "AsyncWorkerSession", "Balance", "BalanceStatus", "CallCancelledError", "Certainty", "Client",
    "ClientClosedError", "DeadlineExceededError", "Decision", "Deployment", "DeploymentSpec",
    "DeploymentStatus", "Effort", "EngineAnswer", "EngineOptions", "EngineSession",
    "FailedPreconditionError", "FieldViolation", "Flip", "Imbalance", "InternalError",
    "InvalidArgumentError", "Judgement", "Mode", "MoveBudget", "Moves", "NotFoundError",
    "Objective", "Operation", "OperationKind", "PackResult", "PlaceResult", "Placement",
    "PlacementCause", "Policy", "ProtocolError", "Reason", "ResourceExhaustedError", "RetryPolicy",
    "RollbackPoint", "Scope", "ServedPlacement", "ServerStatus", "ServingStatus", "SolverOptions",
    "Split", "StateEvent", "StreamItem", "SwitchOffer", "SwitchedBy", "TlsOptions", "Topology",
    "Transfer", "Transfers", "TriggerResult", "TrimtabError", "UnavailableError",
    "UnimplementedError", "Version", "WorkerOptions", "WorkerSession", "WorkerStatus",
]
# fmt: on


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    thing = getattr(import_module(f"trimtab_client.{_LATER[name]}"), name)
    globals()[name] = thing
    return thing


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
