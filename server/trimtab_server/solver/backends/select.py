"""Chooses the backend for a request."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Literal, get_args

import torch

from trimtab_server.domain.errors import invalid, require
from trimtab_server.solver.backends.backend import Backend, Fallback, ignore_fallback
from trimtab_server.solver.backends.reference.backend import Reference

BackendName = Literal["auto", "reference", "cpu", "cuda"]

_UNUSABLE = (ImportError, RuntimeError)
"""The errors raised when a backend that cannot run here is opened."""


def backend_for(
    choice: BackendName | Backend,
    device: torch.device,
    on_fallback: Fallback = ignore_fallback,
    *,
    wait_for_kernels: bool = True,
) -> Backend:
    """The backend to use for tensors on `device`.

    "auto" is "cuda" for a CUDA device and "cpu" for others; if that one cannot run, it is
    the next of cuda, cpu and reference that can.

    Args:
        choice: a name, or a backend, which is returned.
        device: of the tensors.
        on_fallback: called for each backend that "auto" skips because it cannot run, and
            by the backend for each request that another backend has to answer.
        wait_for_kernels: whether a request may wait seconds until its kernels are compiled;
            if not, another backend answers meanwhile.

    Raises:
        InvalidArgumentError: there is no such backend, or it cannot run here.
    """
    if not isinstance(choice, str):
        return choice
    names = get_args(BackendName)
    require(choice in names, "backend", f"{choice!r} is not one of {names}")
    if choice != "auto":
        try:
            return _open(choice, device, on_fallback, wait_for_kernels)
        except _UNUSABLE as error:
            raise invalid("backend", f"{choice!r} cannot run here: {error}") from error
    for name in ("cuda", "cpu") if device.type == "cuda" else ("cpu",):
        try:
            return _open(name, device, on_fallback, wait_for_kernels)
        except _UNUSABLE as error:
            on_fallback(name, "missing", str(error))
    return _reference()


def _open(
    name: str, device: torch.device, on_fallback: Fallback, wait_for_kernels: bool
) -> Backend:
    # Imported here, since Numba and Triton are heavy and may not be installed.
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
