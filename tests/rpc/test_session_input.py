"""Messages of workers that cannot be: what is wrong is said, by field and value."""

from __future__ import annotations

import pytest

from tests.rpc.peers import group, hello, refused, report, version
from tests.rpc.placements import BEFORE
from trimtab.v1 import placement_pb2, topology_pb2
from trimtab.v1alpha1 import session_service_pb2 as pb
from trimtab.v1alpha1 import switch_pb2
from trimtab_protocol.wire.tensors import encode_tensor

NO_SUCCESSOR = f"is above {(1 << 53) - 1}"
FORGED = placement_pb2.Placement(phy2log=encode_tensor(BEFORE.phy2log, "i4"), digest=bytes(32))


@pytest.mark.parametrize(
    ("changes", "field", "said"),
    [
        ({"deployment": ""}, "hello.deployment", "'' does not have 1 to 200 characters"),
        ({"worker": "w" * 201}, "hello.worker", "does not have 1 to 200 characters"),
        ({"stream": 0}, "hello.stream", "0 is below 1"),
        ({"gpus": []}, "hello.gpus", "is empty"),
        ({"gpus": [1, 0]}, "hello.gpus", "[1, 0] does not rise"),
        ({"gpus": [0, 2]}, "hello.gpus", "[0, 2] is not below num_gpus = 2"),
        ({"scope": 0}, "hello.scope", "0 is not a known value"),
        ({"transfer": 9}, "hello.transfer", "9 is not a known value"),
        ({"staging_slots": 0}, "hello.staging_slots", "0 is below 1"),
        ({"num_experts": 5}, "hello.placement.phy2log", "expert 4 has no slot in layer 0"),
        ({"num_experts": 7}, "hello.topology.num_replicas", "6 slots cannot hold 7 experts"),
        ({"num_experts": 2**32 - 1}, "hello.topology.num_replicas", "6 slots cannot hold 42949672"),
        (
            {
                "num_experts": 5,
                "topology": topology_pb2.Topology(num_replicas=6, num_gpus=2, num_groups=2),
            },
            "hello.topology.num_groups",
            "2 does not divide the number of experts (5)",
        ),
        ({"placement": None}, "hello.placement", "is required"),
        ({"placement": FORGED}, f"hello.placement.digest: {'00' * 32}", "is not the placement's"),
        ({"held": switch_pb2.Held()}, "hello.held.state", "0 is not a known value"),
        ({"gpus": [1, 1]}, "hello.gpus", "[1, 1] does not rise"),
        ({"gpus": [9] * 1000}, "hello.gpus", "[9, 9, 9, 9, 9, 9, 9, 9, …] does not rise"),
        (
            {"topology": topology_pb2.Topology(num_replicas=8, num_gpus=2)},
            "hello.placement.phy2log.shape",
            "[2, 6]: has not num_replicas = 8 columns",
        ),
        (
            {"placement": placement_pb2.Placement(phy2log=encode_tensor([0, 1], "i4"))},
            "hello.placement.phy2log.shape",
            "[2] has rank 1, not 2",
        ),
        ({"model": "m" * 201}, "hello.model", "201 characters are more than 200"),
        ({"term": 1 << 53}, "hello.term: ", NO_SUCCESSOR),
        ({"epoch": 1 << 63}, "hello.epoch: ", NO_SUCCESSOR),
        ({"generation": 1 << 54}, "hello.generation: ", NO_SUCCESSOR),
        ({"in_force": version(1 << 53, 0)}, "hello.in_force", NO_SUCCESSOR),
        ({"in_force": version(1, 1 << 60)}, "hello.in_force", NO_SUCCESSOR),
        ({"held": {"version": version(1 << 53, 0), "state": 1}}, "held.version: ", NO_SUCCESSOR),
        (
            {"placement": placement_pb2.Placement(phy2log=encode_tensor(BEFORE.phy2log, "f4"))},
            "hello.placement.phy2log",
            "float32",
        ),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_an_invalid_hello_is_refused_and_the_field_named(endpoint, changes, field, said):
    code, details = await refused(endpoint.channel, hello=hello(**changes))
    assert code == "INVALID_ARGUMENT"
    assert field in details
    assert said in details


@pytest.mark.parametrize(
    "message",
    [
        {"goodbye": pb.Goodbye()},
        {"report": report(1)},
        {"prepared": switch_pb2.Prepared(version=version(1, 1))},
        {},
    ],
    ids=["goodbye", "report", "answer", "nothing"],
)
async def test_a_stream_begins_with_hello(endpoint, message):
    said = "hello: has to be the first message of the stream"
    assert await refused(endpoint.channel, **message) == ("INVALID_ARGUMENT", said)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"hello": hello()}, "hello: may be sent only once, as the first message"),
        ({}, "message: None may not be sent here"),
        ({"prepared": switch_pb2.Prepared()}, "prepared.version: is required"),
        (
            {"discarded": switch_pb2.Discarded(version=version(1 << 53, 0))},
            f"discarded.version: {1 << 53} {NO_SUCCESSOR}",
        ),
        ({"report": report(0)}, "report.seq: 0 is below 1"),
        ({"report": pb.Report(seq=1)}, "report.counts: is required"),
        ({"report": report(2, counts=-1)}, "report.counts[0, 0]: -1 is below 5, of report 1"),
        ({"report": report(2, last_step=0)}, "report.last_step: 0 is before 1, of report 1"),
        (
            {"report": pb.Report(seq=2, last_step=2, counts=encode_tensor([[1] * 6] * 2, "i8"))},
            "report.counts: shape [2, 6] is not [2, 4]",
        ),
        (
            {"report": pb.Report(seq=2, last_step=2, counts=encode_tensor([[1] * 4] * 2, "i4"))},
            "report.counts.data_type: int32 is not int64",
        ),
        (
            {"report": report(2, first_step=4)},
            "report.first_step: 4 is after 3, the step that follows last_step",
        ),
        (
            {"report": report(2, counts=1 << 60)},
            "report.counts: 9.22e+18 tokens are not below 4611686018427387904",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_an_invalid_message_ends_the_session(endpoint, message, said):
    (peer,) = await group(endpoint.channel, workers=1)
    await peer.report(1, counts=5)
    await peer.say(**message)
    assert await peer.end() == ("INVALID_ARGUMENT", said)
