"""Whether kernels can run on a device, and how they fail."""
# mypy: disable-error-code="import-not-found,import-untyped,unused-ignore"

from __future__ import annotations

import torch
from triton.runtime.jit import JITFunction

from trimtab_server.solver.backends.cuda.refine import refine

_OLDEST = (7, 0)


def require_usable(device: torch.device) -> None:
    """Raise RuntimeError, in words, if kernels cannot run on the device."""
    interpreted = not isinstance(refine, JITFunction)
    if interpreted:
        if device.type != "cpu":
            raise RuntimeError("under TRITON_INTERPRET=1 kernels run on the CPU only")
        return
    if device.type != "cuda" or not torch.cuda.is_available():
        raise RuntimeError("there is no CUDA device here")
    found = torch.cuda.get_device_capability(device)
    if found < _OLDEST:
        raise RuntimeError(f"compute capability {found} is below {_OLDEST}")
