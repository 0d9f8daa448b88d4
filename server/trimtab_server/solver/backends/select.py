"""Which backend carries out a request."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Literal, get_args

import torch

from trimtab_server.domain.errors import invalid, require
from trimtab_server.solver.backends.backend import Backend, Fallback, no_matter
from trimtab_server.solver.backends.reference.backend import Reference

BackendName = Literal["auto", "reference", "cpu", "cuda"]

_CANNOT = (ImportError, RuntimeError)
"""What a backend that cannot run here raises when it is opened."""


def backend_for(
    choice: BackendName | Backend,
    device: torch.device,
    on_fallback: Fallback = no_matter,
    *,
    wait_for_kernels: bool = True,
) -> Backend:
    """The backend that `choice` stands for, for tensors on `device`.

    "auto" is "cuda" for a CUDA device and "cpu" for others; where one cannot run,
    the next of cuda, cpu, reference.

    Args:
        choice: a name; a backend stands for itself.
        device: where tensors lie, or should be worked on.
        on_fallback: told of each backend that "auto" passes over, and, by the
            backend chosen, of requests that it has to pass on.
        patient: whether a request may wait for kernels to be compiled, for seconds;
            if not, the next best backend answers meanwhile.

    Raises:
        InvalidArgumentError: no such backend, or it cannot run here.
    """
    if not isinstance(choice, str):
        return choice
    names = get_args(BackendName)
    require(choice in names, "backend", f"{choice!r} is not one of {names}")
    if choice != "auto":
        try:
            return _open(choice, device, on_fallback, wait_for_kernels)
        except _CANNOT as error:
            raise invalid("backend", f"{choice!r} cannot run here: {error}") from error
    for name in ("cuda", "cpu") if device.type == "cuda" else ("cpu",):
        try:
            return _open(name, device, on_fallback, wait_for_kernels)
        except _CANNOT as error:
            on_fallback(name, "missing", str(error))
    return _reference()


def _open(
    name: str, device: torch.device, on_fallback: Fallback, wait_for_kernels: bool
) -> Backend:
    # Imported here: Numba and Triton are heavy, and need not be installed.
    if name == "cuda":
        from trimtab_server.solver.backends.cuda.backend import Cuda

        on = device if device.type == "cuda" else torch.device("cuda", 0)
        return _cached(Cuda, on, on_fallback, wait_for_kernels)
    if name == "cpu":
        from trimtab_server.solver.backends.cpu.backend import Cpu

        return _cached(Cpu)
    return _reference()


@cache
def _cached(kind: Callable[..., Backend], *arguments: object) -> Backend:
    return kind(*arguments)


def _reference() -> Backend:
    return _cached(Reference)
