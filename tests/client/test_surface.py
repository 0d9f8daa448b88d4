from __future__ import annotations

import inspect
import typing
from typing import Any

import pytest

import trimtab_client
from trimtab_client import AsyncClient, Client

METHODS = sorted(
    name for name, _ in inspect.getmembers(Client, callable) if not name.startswith("_")
)
SUBMODULES = ("aio", "channel", "client", "exceptions", "options", "placement", "results", "retry")


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
    assert METHODS == ["close", "health", "pack", "place", "place_stream", "wait_ready"]


@pytest.mark.parametrize("name", ["__init__", *METHODS])
def test_both_clients_take_the_same_arguments(name: str) -> None:
    ours, theirs = getattr(Client, name), getattr(AsyncClient, name)

    assert shape(ours) == shape(theirs)
    loads = "loads"
    hints = [typing.get_type_hints(function) for function in (ours, theirs)]
    for parameter in inspect.signature(ours).parameters:
        if parameter not in ("self", loads):
            assert hints[0][parameter] == hints[1][parameter], parameter


@pytest.mark.parametrize("name", [n for n in METHODS if n != "place_stream"])
def test_both_clients_answer_the_same(name: str) -> None:
    ours, theirs = (
        typing.get_type_hints(getattr(kind, name))["return"] for kind in (Client, AsyncClient)
    )
    assert ours == theirs
    assert inspect.iscoroutinefunction(getattr(AsyncClient, name))


def test_everything_public_is_exported_once_and_sorted() -> None:
    public = {
        name
        for module in SUBMODULES
        for name, thing in vars(getattr(trimtab_client, module)).items()
        if inspect.isclass(thing)
        and thing.__module__ == f"trimtab_client.{module}"
        and not name.startswith("_")
        and name not in ("Attempts", "Deadline")
    }

    assert public | {"Effort", "Objective", "ServingStatus"} == set(trimtab_client.__all__)
    assert list(trimtab_client.__all__) == sorted(set(trimtab_client.__all__))


@pytest.mark.parametrize("name", trimtab_client.__all__)
def test_everything_exported_is_there_and_documented(name: str) -> None:
    thing = getattr(trimtab_client, name)

    if inspect.isclass(thing):
        assert thing.__doc__
        assert not thing.__doc__.startswith(f"{name}("), "a docstring made by dataclass"
        for method_name, method in vars(thing).items():
            if inspect.isfunction(method) and not method_name.startswith("_"):
                assert method.__doc__, f"{name}.{method_name}"
