"""Checks that kernels can run on a device, and describes it."""
# mypy: disable-error-code="import-not-found,import-untyped,unused-ignore"

from __future__ import annotations

import logging
import os
import re
import shutil
import sysconfig
from importlib.metadata import version
from pathlib import Path

import torch
from triton.backends.nvidia.driver import CudaUtils
from triton.runtime.jit import JITFunction

from trimtab_server.solver.backends.cuda.refine import refine

log = logging.getLogger(__name__)

_OLDEST = (7, 5)
"""The lowest compute capability for which the tests compile the kernels."""

_DRIVER = Path("/proc/driver/nvidia/version")


def require_usable(device: torch.device) -> None:
    """Raise RuntimeError with the reason if kernels cannot run on the device; else log its name."""
    interpreted = not isinstance(refine, JITFunction)
    if interpreted:
        if device.type != "cpu":
            raise RuntimeError("under TRITON_INTERPRET=1 kernels run on the CPU only")
        return
    if device.type != "cuda" or not torch.cuda.is_available():
        raise RuntimeError("this machine has no CUDA device")
    found = torch.cuda.get_device_capability(device)
    if found < _OLDEST:
        raise RuntimeError(f"compute capability {found} is below {_OLDEST}")
    build_driver_utilities()
    log.info("kernels run on %s", describe(device))


def describe(device: torch.device) -> str:
    """One line about a CUDA device: name, compute capability, driver, and Triton's version."""
    major, minor = torch.cuda.get_device_capability(device)
    name = torch.cuda.get_device_name(device)
    return (
        f"{name}, compute capability {major}.{minor}, driver {driver_version()}, "
        f"Triton {version('triton')}"
    )


def driver_version() -> str:
    """The version of the loaded NVIDIA driver; "unknown" if Linux does not tell it."""
    try:
        found = re.search(r"\d+\.\d+(\.\d+)?", _DRIVER.read_text())
    except OSError:
        found = None
    return found.group() if found else "unknown"


def build_driver_utilities() -> None:
    """Build the library that Triton loads kernels with, or find it in Triton's cache.

    Triton would build it at the first launch, with a C compiler: too late to report that
    the compiler is missing.

    Raises:
        RuntimeError: it cannot be built; the message says what is missing.
    """
    try:
        CudaUtils()
    except Exception as error:
        missing = _missing()
        hint = f"; missing: {', '.join(missing)}" if missing else ""
        raise RuntimeError(f"Triton cannot load kernels here: {error}{hint}") from error
    if missing := _missing():
        # The library was in the cache. But Triton 3.6 also builds a launcher for each signature.
        log.warning("kernels that are not in Triton's cache may fail; missing: %s", missing)


def _missing() -> list[str]:
    """The things that Triton needs for building and that this machine lacks, in words."""
    missing = []
    # Triton looks in the same places.
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        missing.append("a C compiler (gcc or clang on the PATH, or named by CC)")
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    if not header.exists():
        missing.append(f"Python's headers ({header}; Debian has them in python3-dev)")
    return missing
