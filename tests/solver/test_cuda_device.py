"""The checks that Triton can launch kernels on a machine, and their messages."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

pytest.importorskip("triton")
pytestmark = pytest.mark.concurrent

_CHILD = """
import logging, sys, torch
torch.cuda.is_available = lambda: True
torch.cuda.get_device_capability = lambda _: (9, 0)
torch.cuda.get_device_name = lambda _: "NVIDIA H100"
from trimtab_server.solver.backends.cuda import device
logging.basicConfig(level="INFO", stream=sys.stdout)
if "built" in sys.argv:
    device.CudaUtils = lambda: None
try:
    device.require_usable(torch.device("cuda", 0))
except RuntimeError as error:
    print(error)
"""


def machine(files: Path) -> dict[str, str]:
    """The environment of a machine with a driver, an empty Triton cache and an empty PATH."""
    for folder in ("driver", "bin", "cache"):
        (files / folder).mkdir()
    (files / "driver" / "libcuda.so.1").touch()
    environment = {**os.environ, "PATH": str(files / "bin")}
    environment |= {
        "TRITON_LIBCUDA_PATH": str(files / "driver"),
        "TRITON_CACHE_DIR": str(files / "cache"),
    }
    # In this process Triton interprets kernels.
    for name in ("CC", "TRITON_INTERPRET"):
        environment.pop(name, None)
    return environment


def said(environment: dict[str, str], *arguments: str) -> str:
    """The output of the checks, in a process in which torch reports a GPU."""
    child = [sys.executable, "-c", _CHILD, *arguments]
    done = subprocess.run(
        child, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_missing_compiler_is_named(tmp_path: Path) -> None:
    told = said(machine(tmp_path))
    assert told.startswith("Triton cannot load kernels here: ")
    assert "missing: a C compiler (gcc or clang on the PATH, or named by CC)" in told


def test_a_compiler_that_fails_is_named(tmp_path: Path) -> None:
    environment = machine(tmp_path)
    broken = tmp_path / "bin" / "gcc"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o755)
    told = said(environment)
    assert str(broken) in told
    assert "missing: a C compiler" not in told


def test_a_usable_device_is_logged_in_one_line(tmp_path: Path) -> None:
    warning, line = said(machine(tmp_path), "built").splitlines()
    # Kernels in Triton's cache need no compiler; later ones may need it.
    assert "missing: ['a C compiler" in warning
    for part in ("NVIDIA H100", "compute capability 9.0", "driver ", f"Triton {version('triton')}"):
        assert part in line
