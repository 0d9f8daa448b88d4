"""What the figures are measured on, and whether this is a rehearsal."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from datetime import UTC, datetime
from typing import Any

import torch

REHEARSAL = os.environ.get("TRITON_INTERPRET") == "1"
"""Kernels run in Triton's interpreter, on the CPU: it shows that the script works, no more."""

DEVICE = torch.device("cpu") if REHEARSAL else torch.device("cuda", 0)

_PACKAGES = ("triton", "numba", "numpy")


def surroundings() -> dict[str, Any]:
    """Date, device, driver and versions; the device is None where there is none."""
    found: dict[str, Any] = {"date": datetime.now(UTC).date().isoformat(), "device": None}
    if REHEARSAL:
        found["device"] = "none, a rehearsal"
    elif torch.cuda.is_available():
        # Imported here: a machine that lacks what it needs shall hear of it from the sections.
        from trimtab_server.solver.backends.cuda.device import driver_version

        major, minor = torch.cuda.get_device_capability()
        found |= {
            "device": torch.cuda.get_device_name(),
            "capability": f"{major}.{minor}",
            "driver": driver_version(),
            "cuda": torch.version.cuda,
        }
    found |= {"cores": os.cpu_count(), "python": platform.python_version()}
    # Torch's own word tells what it was built for; its package's does not.
    found["torch"] = torch.__version__
    return found | {name: importlib.metadata.version(name) for name in _PACKAGES}


def not_passed_on(backend: str, reason: str, detail: str) -> None:
    """The hook of a backend that is measured: what another one answers is no figure of its own."""
    raise AssertionError((backend, reason, detail))
