"""Imports only point downwards: parsed from the source, so no import can hide."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SERVER = ROOT / "server" / "trimtab_server"
STDLIB = set(sys.stdlib_module_names)

# What the modules of each layer may import: other layers, then libraries.
LAYERS: dict[str, tuple[set[str], set[str]]] = {
    "domain": (set(), {"numpy", "torch"}),
    "setting": (set(), set()),
    "environment": (set(), set()),
    "memory": (set(), set()),
    "device": ({"domain", "setting"}, {"torch"}),
    "solver": ({"domain"}, {"numpy", "torch", "scipy", "numba", "llvmlite", "triton"}),
    "rollout": ({"domain"}, {"numpy"}),
    "store": ({"domain", "rollout", "setting"}, {"numpy"}),
    "loads": ({"domain"}, {"numpy"}),
    "policy": ({"domain", "loads"}, {"numpy"}),
    "engine": (
        {"domain", "solver", "rollout", "loads", "policy", "store", "device", "setting"},
        {"numpy", "torch"},
    ),
    "history": ({"domain", "engine", "policy", "setting"}, {"structlog"}),
    "metrics": ({"domain", "engine", "policy", "rollout", "setting"}, {"prometheus_client"}),
    "rpc": (
        {"domain", "solver", "rollout", "loads", "policy", "engine", "setting"},
        {"numpy", "grpc", "google", "grpc_health", "grpc_reflection", "structlog", "trimtab"},
    ),
    "logs": ({"domain", "setting"}, {"structlog"}),
    "config": (
        {"domain", "engine", "history", "metrics", "rpc", "logs", "device", "setting"}
        | {"environment"},
        set(),
    ),
    "warming": ({"domain", "solver"}, {"torch"}),
    "app": (
        {"warming", "domain", "solver", "engine", "store", "history", "metrics", "rpc"}
        | {"logs", "device", "config", "environment", "memory"},
        {"torch", "structlog"},
    ),
    "store_commands": ({"config", "domain", "store"}, set()),
    "cli": (
        {"app", "warming", "store_commands", "config", "domain", "logs", "rpc", "store"},
        {"uvloop"},
    ),
}


def imported(path: Path) -> Iterator[str]:
    """Absolute names of all imports, wherever in the file they stand."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer_of(path: Path) -> str:
    return path.relative_to(SERVER).parts[0].removesuffix(".py")


def may_import(layer: str, name: str) -> bool:
    """Whether a module of the server's layer may import this name."""
    layer = "cli" if layer in ("__init__", "__main__") else layer
    layers, libraries = LAYERS[layer]
    top, *rest = name.split(".")
    if top == "trimtab_server":
        return not rest or rest[0] in {layer, *layers, "__version__"}
    return top in STDLIB | libraries | {"trimtab_protocol"}


def test_the_server_imports_downwards_only():
    upwards = [
        f"{path.relative_to(SERVER)} imports {name}"
        for path in SERVER.rglob("*.py")
        for name in imported(path)
        if not may_import(layer_of(path), name)
    ]
    assert not upwards


PACKAGES = {
    "protocol": {"trimtab_protocol", "numpy"},
    "client": {"trimtab_client", "trimtab_protocol", "trimtab", "google.protobuf", "grpc", "numpy"},
    "tools": {"trimtab_server", "trimtab_tools", "trimtab_client", "trimtab_protocol", "trimtab"}
    | {"grpc", "numpy", "yaml"},
}
"""What each package may import beside the standard library: itself, packages, libraries."""


def may_use(package: str, path: Path, name: str) -> bool:
    """Whether a module of a package may import this name."""
    library = "google.protobuf" if name.startswith("google.protobuf") else name.split(".")[0]
    wire = {"trimtab"} if path.parent.name == "wire" else set()
    return library in STDLIB | PACKAGES[package] | wire


def test_a_package_imports_only_what_its_distribution_depends_on():
    others = [
        f"{path.relative_to(ROOT)} imports {name}"
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        for name in imported(path)
        if not may_use(package, path, name)
    ]
    assert not others


@pytest.mark.process
def test_importing_the_command_line_loads_no_heavy_library():
    code = "import sys, trimtab_client, trimtab_tools.cli; print('\\n'.join(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    heavy = {"torch", "pyarrow", "scipy", "prometheus_client", "structlog", "uvloop", "google.rpc"}
    assert not heavy & set(loaded)
    assert not [name for name in loaded if name.startswith("trimtab_server")]


def test_protobuf_stops_at_the_wire():
    users = {
        layer_of(path)
        for path in SERVER.rglob("*.py")
        for name in imported(path)
        if name.startswith(("google.protobuf", "trimtab.", "trimtab_protocol.wire"))
    }
    assert users == {"rpc"}
