"""The torch device that the solver runs on."""

from __future__ import annotations

import platform

import torch

from trimtab_server.domain.errors import require
from trimtab_server.setting import device_spec


def resolve_device(spec: str) -> torch.device:
    """The device that `spec` names on this machine; "auto" prefers CUDA.

    Raises:
        InvalidArgumentError: `spec` is misspelt, or this machine has no such device.
    """
    complaint = device_spec(spec)
    require(complaint is None, "device", complaint or "")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if spec == "cpu" or (spec == "auto" and count == 0):
        return torch.device("cpu")
    index = int(spec.partition(":")[2] or 0)
    require(index < count, "device", f"{spec!r}: this machine has {count} usable CUDA devices")
    return torch.device("cuda", index)


def device_name(device: torch.device) -> str:
    """The manufacturer's name of the device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.processor() or platform.machine()


def synchronize(device: torch.device) -> None:
    """Wait until `device` has finished all queued work, so that measured times are right."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
