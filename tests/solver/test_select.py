"""backend_for chooses the fastest backend that runs here, and reports the ones that it skips."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from trimtab_server.domain.errors import InvalidArgumentError
from trimtab_server.solver import backend_for, balanced_packing
from trimtab_server.solver.backends.cpu import compiled
from trimtab_server.solver.backends.cpu.backend import Cpu
from trimtab_server.solver.backends.reference.backend import Reference

HERE = torch.device("cpu")
CPU_PACKAGE = "trimtab_server.solver.backends.cpu"
ROOT = Path(__file__).parents[2]


def never(*told: str) -> None:
    raise AssertionError(told)


@pytest.fixture
def without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulates that Numba is not installed, and that no module has imported it yet."""
    monkeypatch.setitem(sys.modules, "numba", None)
    for name in [name for name in sys.modules if name.startswith(f"{CPU_PACKAGE}.")]:
        monkeypatch.delitem(sys.modules, name)


def test_auto_on_a_host_is_the_cpu_backend():
    assert isinstance(backend_for("auto", HERE, never), Cpu)


@pytest.mark.parametrize(("name", "kind"), [("cpu", Cpu), ("reference", Reference)])
def test_a_name_stands_for_its_backend(name, kind):
    chosen = backend_for(name, HERE, never)
    assert isinstance(chosen, kind)
    assert chosen.name == name
    assert backend_for(name, HERE) is chosen


def test_a_backend_stands_for_itself():
    mine = Reference()
    assert backend_for(mine, torch.device("cuda"), never) is mine


@pytest.mark.parametrize("name", ["abacus", "", "CPU"])
def test_an_unknown_name_is_refused(name):
    with pytest.raises(InvalidArgumentError) as error:
        backend_for(name, HERE)
    (violation,) = error.value.violations
    assert violation.field == "backend"
    assert repr(name) in violation.description


@pytest.mark.usefixtures("without_numba")
def test_without_numba_auto_is_the_reference_and_says_so():
    told: list[tuple[str, str, str]] = []
    chosen = backend_for("auto", HERE, lambda *what: told.append(what))
    assert isinstance(chosen, Reference)
    ((name, reason, detail),) = told
    assert (name, reason) == ("cpu", "missing")
    assert "numba" in detail
    assert balanced_packing([[3.0, 2.0, 2.0, 1.0]], 2)[0].tolist() == [[0, 1, 1, 0]]


@pytest.mark.usefixtures("without_numba")
def test_without_numba_asking_for_the_cpu_backend_is_an_error():
    with pytest.raises(InvalidArgumentError) as error:
        balanced_packing([[1.0, 2.0]], 2, backend="cpu")
    (violation,) = error.value.violations
    assert violation.field == "backend"
    assert "'cpu' cannot run here" in violation.description
    assert "numba" in violation.description


def test_a_user_without_a_home_keeps_machine_code_in_the_given_folder(tmp_path, monkeypatch):
    def nobody(_: int) -> None:
        raise KeyError

    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", nobody)
    monkeypatch.setattr("numba.core.config.CACHE_DIR", str(tmp_path))
    folder = compiled._cache_folder()
    assert folder is not None
    assert folder.is_relative_to(tmp_path)
    monkeypatch.setattr("numba.core.config.CACHE_DIR", "")
    assert compiled._cache_folder() is None
