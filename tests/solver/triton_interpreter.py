"""Import this before any kernel: without a GPU they run in Triton's interpreter, on the CPU."""

from __future__ import annotations

import os

import pytest
import torch

from trimtab_server.solver.backends.backend import ignore_fallback
from trimtab_server.solver.settings import Settings

DEVICE = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")

_VARIABLE = "TRITON_INTERPRET"

if DEVICE.type == "cpu":
    # Triton reads the variable when a kernel is defined (for its own library: at the first
    # import), and again when a kernel is first run. Servers that other tests start must not
    # inherit it.
    os.environ[_VARIABLE] = "1"
    try:
        triton = pytest.importorskip("triton")
        from trimtab_server.solver.backends.cuda.backend import Cuda

        first = Cuda(DEVICE, ignore_fallback)
        first.pack(torch.ones(1, 1, dtype=torch.float64), 1, None, Settings())
    finally:
        del os.environ[_VARIABLE]
    library = type(triton.language.standard.max).__name__
    assert library == "InterpretedFunction", "another module imported triton before this one"
