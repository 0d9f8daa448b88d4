"""The Trimtab client: asks a server to place the experts of a Mixture-of-Experts model.

    from trimtab_client import Client, Topology

    with Client("localhost:50051") as client:
        result = client.place(load, Topology(num_replicas=288, num_gpus=32))
        result.placement.phy2log  # the expert in each slot, int32 [L, R]

`Client` is for threads and plain functions, `AsyncClient` for asyncio. Arrays go in as
anything that numpy or torch understands, and come out as numpy arrays.
"""

from trimtab_client.aio import AsyncClient
from trimtab_client.channel import TlsOptions
from trimtab_client.client import Client
from trimtab_client.exceptions import (
    AccessDeniedError,
    CallCancelledError,
    ClientClosedError,
    DeadlineExceededError,
    FieldViolation,
    InternalError,
    InvalidArgumentError,
    ProtocolError,
    ResourceExhaustedError,
    TrimtabError,
    UnavailableError,
    UnimplementedError,
)
from trimtab_client.options import Effort, MoveBudget, Objective, SolverOptions, Topology
from trimtab_client.placement import Balance, Placement
from trimtab_client.results import Moves, PackResult, PlaceResult, StreamItem
from trimtab_client.retry import RetryPolicy
from trimtab_client.wire import ServingStatus

__all__ = [
    "AccessDeniedError",
    "AsyncClient",
    "Balance",
    "CallCancelledError",
    "Client",
    "ClientClosedError",
    "DeadlineExceededError",
    "Effort",
    "FieldViolation",
    "InternalError",
    "InvalidArgumentError",
    "MoveBudget",
    "Moves",
    "Objective",
    "PackResult",
    "PlaceResult",
    "Placement",
    "ProtocolError",
    "ResourceExhaustedError",
    "RetryPolicy",
    "ServingStatus",
    "SolverOptions",
    "StreamItem",
    "TlsOptions",
    "Topology",
    "TrimtabError",
    "UnavailableError",
    "UnimplementedError",
]
