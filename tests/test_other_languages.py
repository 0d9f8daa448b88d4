"""A client without any of our code: grpcurl, through reflection."""

from __future__ import annotations

import base64
import json
import struct
import subprocess
import sys
from pathlib import Path

from tests.servers import ServerProcess

GRPCURL = str(Path(sys.executable).with_name("grpcurl"))


def grpcurl(server: ServerProcess, *arguments: str, messages: str = "") -> str:
    flags = ["-plaintext", *(["-d", "@"] if messages else [])]
    done = subprocess.run(
        [GRPCURL, *flags, server.address, *arguments],
        input=messages,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout + done.stderr


def tensor(row: list[float]) -> dict[str, object]:
    data = base64.b64encode(struct.pack(f"<{len(row)}d", *row)).decode()
    return {"dataType": "DATA_TYPE_FLOAT64", "shape": [1, len(row)], "data": data}


def slots(placement: dict[str, dict[str, str]]) -> list[int]:
    data = base64.b64decode(placement["phy2log"]["data"])
    return list(struct.unpack(f"<{len(data) // 4}i", data))


TOPOLOGY = {"numReplicas": 4, "numGpus": 2}
LOAD = tensor([9.0, 1.0, 2.0])


def test_reflection_describes_the_service(server):
    assert "trimtab.v1.SolverService" in grpcurl(server, "list")
    described = grpcurl(server, "describe", "trimtab.v1.SolverService")
    assert "rpc PlaceStream ( stream .trimtab.v1.PlaceStreamRequest )" in described


def test_a_load_is_placed(server):
    request = json.dumps({"load": LOAD, "topology": TOPOLOGY})
    answer = json.loads(grpcurl(server, "trimtab.v1.SolverService/Place", messages=request))
    placed = slots(answer["placement"])
    assert sorted(placed) == [0, 0, 1, 2]
    assert {0} < set(placed[:2]), "one replica of the hot expert on each GPU"
    assert {0} < set(placed[2:])


def test_a_stream_answers_load_by_load(server):
    messages = [
        {"config": {"topology": TOPOLOGY}},
        {"load": {"id": 7, "load": LOAD}},
        {"load": {"id": 8, "load": tensor([1.0, -1.0, 2.0])}},
        {"load": {"id": 9, "load": tensor([1.0, 9.0, 2.0])}},
    ]
    lines = "\n".join(map(json.dumps, messages))
    printed = grpcurl(server, "trimtab.v1.SolverService/PlaceStream", messages=lines)
    answers = json.loads("[" + printed.replace("}\n{", "},{") + "]")
    assert [answer["id"] for answer in answers] == ["7", "8", "9"]
    assert sorted(slots(answers[0]["placed"]["placement"])) == [0, 0, 1, 2]
    assert answers[1]["error"]["field_violations"][0]["field"] == "load[0, 1]"
    assert sorted(slots(answers[2]["placed"]["placement"])) == [0, 1, 1, 2]


def test_an_error_names_field_and_value(server):
    request = json.dumps({"load": LOAD, "topology": {"numReplicas": 5, "numGpus": 2}})
    answer = grpcurl(server, "trimtab.v1.SolverService/Place", messages=request)
    assert "InvalidArgument" in answer
    assert "topology.num_replicas" in answer
    assert "5 is not a multiple of num_gpus (2)" in answer
