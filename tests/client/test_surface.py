from __future__ import annotations

import ast
import inspect
import subprocess
import sys
import typing
from importlib import import_module
from typing import Any

import pytest

import trimtab_client
from trimtab_client import AsyncClient, Client

METHODS = sorted(
    name for name, _ in inspect.getmembers(Client, callable) if not name.startswith("_")
)
STREAMS = ("place_stream", "watch_placement")
SUBMODULES = (
    *("aio", "channel", "client", "deployments", "engine", "exceptions", "operations", "options"),
    *("placement", "policies", "results", "retry"),
    *("worker.aio", "worker.offer", "worker.options", "worker.session"),
)


def shape(function: Any) -> list[tuple[str, Any, Any]]:
    parameters = inspect.signature(function).parameters.values()
    return [(p.name, p.kind, p.default) for p in parameters]


def test_both_clients_have_the_same_methods() -> None:
    assert (
        sorted(
            name
            for name, _ in inspect.getmembers(AsyncClient, callable)
            if not name.startswith("_")
        )
        == METHODS
    )
    solver = {"pack", "place", "place_stream"}
    deployments = {"create_deployment", "get_deployment", "deployments", "delete_deployment"}
    policy = {"update_policy", "decisions", "operations"}
    placements = {"get_placement", "watch_placement", "pin", "unpin", "roll_back"}
    switches = {"trigger", "pause", "resume", "forget_load"}
    server = {"health", "server_status", "wait_ready", "close"}
    assert set(METHODS) == solver | deployments | policy | placements | switches | server


def test_both_clients_take_the_same_arguments() -> None:
    for name in ("__init__", *METHODS):
        ours, theirs = getattr(Client, name), getattr(AsyncClient, name)
        assert shape(ours) == shape(theirs), name
        hints = [typing.get_type_hints(function) for function in (ours, theirs)]
        for parameter in inspect.signature(ours).parameters:
            if parameter not in ("self", "loads"):
                assert hints[0][parameter] == hints[1][parameter], f"{name}: {parameter}"


def test_both_clients_answer_the_same() -> None:
    for name in METHODS:
        if name not in STREAMS:
            ours, theirs = (
                typing.get_type_hints(getattr(kind, name))["return"]
                for kind in (Client, AsyncClient)
            )
            assert ours == theirs, name
            assert inspect.iscoroutinefunction(getattr(AsyncClient, name)), name


def test_everything_public_is_exported_once_and_sorted() -> None:
    public = {
        name
        for module in SUBMODULES
        for name, thing in vars(import_module(f"trimtab_client.{module}")).items()
        if inspect.isclass(thing)
        and thing.__module__ == f"trimtab_client.{module}"
        and not name.startswith("_")
        and name not in ("Attempts", "Deadline")
    }

    elsewhere = {"Effort", "FieldViolation", "Objective", "OperationKind", "ServingStatus"}
    elsewhere |= {"Scope", "Split", "SwitchedBy", "Topology", "Transfer", "Transfers", "Version"}
    assert public | elsewhere == set(trimtab_client.__all__)
    assert list(trimtab_client.__all__) == sorted(set(trimtab_client.__all__))


def test_the_lazy_imports_match_those_of_type_checkers() -> None:
    """A type checker reads the imports, and Python the table beside them."""
    source = inspect.getsource(trimtab_client)
    [block] = [node for node in ast.parse(source).body if isinstance(node, ast.If)]
    seen = {
        alias.name: node.module.removeprefix("trimtab_client.")
        for node in block.body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    assert ast.unparse(block.test) == "TYPE_CHECKING"
    assert seen == trimtab_client._LATER
    assert set(seen) <= set(trimtab_client.__all__)


@pytest.mark.process
def test_importing_the_client_loads_no_worker_modules() -> None:
    code = """
import sys, trimtab_client
assert not [name for name in sys.modules if name.startswith("trimtab_client.worker")]
assert set(trimtab_client.__all__) <= set(dir(trimtab_client))
trimtab_client.WorkerSession
assert "trimtab_client.worker.session" in sys.modules
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'trimtab_client' has no attribute 'Worker'"):
        trimtab_client.Worker  # noqa: B018


def test_everything_exported_is_there_and_documented() -> None:
    things = {name: getattr(trimtab_client, name) for name in trimtab_client.__all__}
    classes = {name: thing for name, thing in things.items() if inspect.isclass(thing)}
    # dataclass makes a docstring where there is none.
    bare = [n for n, c in classes.items() if not c.__doc__ or c.__doc__.startswith(f"{n}(")]
    bare += [
        f"{name}.{method_name}"
        for name, thing in classes.items()
        for method_name, method in vars(thing).items()
        if inspect.isfunction(method) and not method_name.startswith("_") and not method.__doc__
    ]
    assert not bare
