"""The generated code says what the .proto files say."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

PROTOS = Path(__file__).parents[1] / "protos"
FILES = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))


@pytest.fixture(scope="module")
def compiled(
    starts_processes: None, tmp_path_factory
) -> dict[str, descriptor_pb2.FileDescriptorProto]:
    """What protoc makes of the .proto files now, by name."""
    out = tmp_path_factory.mktemp("protos") / "set.bin"
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc"),
            *(f"-I{PROTOS}", f"--descriptor_set_out={out}", *FILES),
        ],
        check=True,
    )
    return {
        file.name: file
        for file in descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file
    }


@pytest.mark.parametrize("name", FILES)
def test_the_committed_code_is_fresh(compiled, name):
    module = importlib.import_module(name.removesuffix(".proto").replace("/", ".") + "_pb2")
    committed = descriptor_pb2.FileDescriptorProto()
    module.DESCRIPTOR.CopyToProto(committed)
    fresh = compiled[name]
    for message in fresh.message_type:
        clear_json_names(message)
    for message in committed.message_type:
        clear_json_names(message)
    assert committed == fresh, f"{name} changed: run `make protos`"


def clear_json_names(message: descriptor_pb2.DescriptorProto) -> None:
    """A derived name that some versions of protoc write out and some do not."""
    for field in message.field:
        field.ClearField("json_name")
    for nested in message.nested_type:
        clear_json_names(nested)


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith("_service.proto")])
def test_the_stubs_have_every_method(compiled, name):
    module = importlib.import_module(name.removesuffix(".proto").replace("/", ".") + "_pb2_grpc")
    for service in compiled[name].service:
        servicer = getattr(module, f"{service.name}Servicer")
        assert {m.name for m in service.method} == {m for m in vars(servicer) if m[0].isupper()}
