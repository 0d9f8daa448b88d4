"""Run by `make compat` where only the client is installed, on an old and a new protobuf.

Everything that the client needs from protobuf: the generated modules load, and
messages survive the wire.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import google.protobuf
import numpy as np

from trimtab.v1 import solver_service_pb2, solver_service_pb2_grpc
from trimtab.wire.v1 import standard_pb2
from trimtab_client import Client, Topology, wire

request = wire.place_request(np.ones((2, 4)), Topology(8, 4), None, None, None)
parsed = solver_service_pb2.PlaceRequest.FromString(request.SerializeToString())
assert parsed == request
assert list(parsed.load.shape) == [2, 4]
status = standard_pb2.Status(code=3, message="no")
status.details.add().Pack(standard_pb2.BadRequest())
assert standard_pb2.Status.FromString(status.SerializeToString()) == status
assert hasattr(solver_service_pb2_grpc, "SolverServiceStub")
with Client("127.0.0.1:1"):
    pass
assert "torch" not in sys.modules
server = Path(sys.executable).with_name("trimtab-server")
refused = subprocess.run([server, "--version"], capture_output=True, text=True, check=False)
assert refused.returncode == 1
assert "pip install 'trimtab[server]'" in refused.stderr, refused.stderr
print(f"the client runs on protobuf {google.protobuf.__version__}, Python {sys.version.split()[0]}")
