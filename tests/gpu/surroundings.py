"""Describes the machine of a measurement, and whether this is a rehearsal."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from datetime import UTC, datetime
from typing import Any

import torch

REHEARSAL = os.environ.get("TRITON_INTERPRET") == "1"
"""Whether kernels run in Triton's interpreter on the CPU, which only tests the script."""

DEVICE = torch.device("cpu") if REHEARSAL else torch.device("cuda", 0)

_PACKAGES = ("triton", "numba", "numpy")


def surroundings() -> dict[str, Any]:
    """Date, device, driver and versions; the device is None without a GPU."""
    found: dict[str, Any] = {"date": datetime.now(UTC).date().isoformat(), "device": None}
    if REHEARSAL:
        found["device"] = "none, a rehearsal"
    elif torch.cuda.is_available():
        # Imported here, so that the sections report missing packages.
        from trimtab_server.solver.backends.cuda.device import driver_version

        major, minor = torch.cuda.get_device_capability()
        found |= {
            "device": torch.cuda.get_device_name(),
            "capability": f"{major}.{minor}",
            "driver": driver_version(),
            "cuda": torch.version.cuda,
        }
    found |= {"cores": os.cpu_count(), "python": platform.python_version()}
    # Torch's own version tells the CUDA version it was built for; its package's does not.
    found["torch"] = torch.__version__
    return found | {name: importlib.metadata.version(name) for name in _PACKAGES}


def not_passed_on(backend: str, reason: str, detail: str) -> None:
    """Raises if a measured backend leaves a request to another one, whose time would not count."""
    raise AssertionError((backend, reason, detail))
