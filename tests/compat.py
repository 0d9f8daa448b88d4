"""Run by `make compat` where only the client is installed, on old and on new libraries.

Everything that the client needs of protobuf, gRPC and numpy: the generated modules load,
messages survive the wire, and a session works without a server.
"""

from __future__ import annotations

import asyncio
import queue
import sys
from datetime import UTC, datetime
from pathlib import Path

import google.protobuf
import grpc
import numpy as np

from trimtab.v1 import solver_service_pb2, solver_service_pb2_grpc
from trimtab.v1alpha1 import deployment_service_pb2, session_service_pb2, switch_pb2
from trimtab.wire.v1 import standard_pb2
from trimtab_client import (
    AsyncWorkerSession,
    Client,
    DeploymentSpec,
    Mode,
    Placement,
    Policy,
    Reason,
    Topology,
    UnavailableError,
    Version,
    WorkerOptions,
    WorkerSession,
    wire,
    wire_deployments,
)
from trimtab_client.wire_values import array_of
from trimtab_client.worker.counters import Counters
from trimtab_client.worker.options import worker_setup
from trimtab_client.worker.proposal import check_offer
from trimtab_client.worker.switch import WorkerSwitch
from trimtab_protocol.messages import Offer
from trimtab_protocol.wire.requests import encode_hello, encode_report
from trimtab_protocol.wire.responses import decode_response
from trimtab_protocol.wire.tensors import encode_tensor

BEFORE = Placement.untouched(2, 4, 6, 2)
AFTER = Placement.of([[0, 1, 2, 3, 0, 1], [0, 1, 3, 2, 0, 1]], 4, 2)
OPTIONS = WorkerOptions(
    deployment="d",
    worker="w",
    topology=Topology(6, 2),
    placement=BEFORE,
    scope="local",
    bytes_per_expert=1,
    staging_slots=1,
)


def same(message):
    """The message as it arrives at the other end."""
    arrived = type(message).FromString(message.SerializeToString())
    assert arrived == message
    return arrived


# Calls.

request = wire.place_request(np.ones((2, 4)), Topology(8, 4), None, None, None)
assert isinstance(request, solver_service_pb2.PlaceRequest)
assert list(same(request).load.shape) == [2, 4]
status = standard_pb2.Status(code=3, message="no")
status.details.add().Pack(standard_pb2.BadRequest())
same(status)
assert hasattr(solver_service_pb2_grpc, "SolverServiceStub")
with Client("127.0.0.1:1"):
    pass

# Deployments.

policy = Policy(mode="shadow", max_moves=0)
spec = DeploymentSpec("d", 2, 4, Topology(6, 2), model="m")
created = same(
    deployment_service_pb2.CreateDeploymentRequest(
        spec=wire_deployments.spec_message(spec), policy=wire_deployments.policy_message(policy)
    )
)
assert created.policy.HasField("max_moves")
assert not created.policy.HasField("every_steps")
decision = deployment_service_pb2.Decision(reason=8, mode=99, imbalance_before=1.5, times=1)
decision.time.FromJsonString("2026-11-23T15:04:05.25Z")
deployment = deployment_service_pb2.Deployment(spec=created.spec, policy=created.policy)
deployment.status.last_decision.CopyFrom(decision)
deployment.status.decisions["improved"] = 1
known = wire_deployments.deployment_value(same(deployment))
assert (known.spec, known.policy, known.status.in_force) == (spec, policy, None)
last = known.status.last_decision
assert (last.reason, last.mode, last.imbalance_after) == (Reason.IMPROVED, Mode.UNKNOWN, None)
assert last.time == datetime(2026, 11, 23, 15, 4, 5, 250_000, UTC)
assert known.status.decisions == {"improved": 1}
placed = deployment_service_pb2.WatchPlacementResponse(
    version=switch_pb2.Version(epoch=1, generation=2),
    placement={"phy2log": encode_tensor(BEFORE.phy2log), "digest": BEFORE.digest},
    topology={"num_replicas": 6, "num_gpus": 2},
    num_experts=4,
)
served = wire_deployments.served_placement(same(placed))
assert (served.version, served.placement) == (Version(1, 2), BEFORE)
with Client("127.0.0.1:1") as client:
    watch = client.watch_placement("d", timeout=0.2)
    try:
        next(watch)
    except UnavailableError:
        watch.close()
    else:
        raise AssertionError("nobody is there to be watched")

# Messages of a session.

switch = WorkerSwitch(group_id="g", worker="w", incarnation=1, gpus=(0, 1), placement=BEFORE)
hello = same(encode_hello(switch.connected(1), worker_setup(OPTIONS))).hello
assert (hello.placement.digest, hello.HasField("in_force")) == (BEFORE.digest, False)
counters = Counters(BEFORE, (0, 1))
counters.record(np.ones((2, 4), np.int32), 0, 0)
counters.record(np.ones((2, 6), np.int64), 1, 1, per_slot=True)
report = same(encode_report(counters.snapshot())).report
assert array_of(report.counts).tolist() == [[3, 3, 2, 2]] * 2

# In layer 1 the GPUs exchange the experts 2 and 3.
offer = switch_pb2.Offer(
    version=switch_pb2.Version(epoch=1, generation=1),
    digest=AFTER.digest,
    base=switch_pb2.Version(epoch=1),
    base_digest=BEFORE.digest,
    layers=encode_tensor(np.array([1], np.int32)),
    old_rows=encode_tensor(BEFORE.phy2log[1:]),
    new_rows=encode_tensor(AFTER.phy2log[1:]),
    receives=encode_tensor(np.array([[1, 2, 3], [1, 3, 2]], np.int32)),
    receive_sources=encode_tensor(np.array([[1], [0]], np.int32)),
)
said = decode_response(same(session_service_pb2.SessionResponse(term=1, offer=offer)))
assert isinstance(said, Offer)
asked = check_offer(said, BEFORE, (0, 1), 1, 0)
assert (asked.version, asked.placement) == (Version(1, 1), AFTER)

# A session without a server.

events = queue.SimpleQueue()
with WorkerSession(
    "127.0.0.1:1",
    OPTIONS,
    on_offer=lambda offer: None,
    on_abort=lambda offer: None,
    on_state=events.put,
) as session:
    event = events.get(timeout=30)
    assert (event.kind, event.values["stream"]) == ("disconnected", 1), event
    assert event.values["reason"].startswith("UNAVAILABLE"), event
    for step in range(3):
        assert session.at_step_boundary(step) is None
        session.record(np.ones((2, 6), int), step, step, per_slot=True)
    assert not session.connected


async def alone() -> None:
    """The same for asyncio."""
    told = asyncio.Queue()
    async with AsyncWorkerSession(
        "127.0.0.1:1",
        OPTIONS,
        on_offer=lambda offer: None,
        on_abort=lambda offer: None,
        on_state=told.put_nowait,
    ) as session:
        event = await asyncio.wait_for(told.get(), 30)
        assert event.kind == "disconnected", event
        assert event.values["reason"].startswith("UNAVAILABLE"), event
        assert await session.at_step_boundary(0) is None


asyncio.run(alone())

# What is not installed.

assert "torch" not in sys.modules
for command in ("trimtab", "trimtab-server"):
    assert not Path(sys.executable).with_name(command).exists(), command
libraries = [
    f"protobuf {google.protobuf.__version__}",
    f"grpcio {grpc.__version__}",
    f"numpy {np.__version__}",
]
print(f"the client runs on {', '.join(libraries)}, Python {sys.version.split()[0]}")
