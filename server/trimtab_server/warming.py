"""Compiles the kernels for models of given sizes before their first request."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Self, get_args

import torch

from trimtab_server.domain.errors import invalid, require
from trimtab_server.domain.topology import Topology
from trimtab_server.solver import BackendName, Effort, settings_for
from trimtab_server.solver.backends.backend import FallbackReason
from trimtab_server.solver.backends.select import backend_for

_SPELLING = re.compile(r"(\d+)x(\d+):(\d+)/(\d+)(?::(\d+)/(\d+))?", re.ASCII)


class CannotWarmError(RuntimeError):
    """The kernels for a shape could not be compiled; the message says which, and why."""


@dataclass(frozen=True)
class Shape:
    """The sizes of a model and of its deployment.

    Attributes:
        layers: L.
        experts: E.
        topology: R, G, and for hierarchical placement nodes and groups.
    """

    layers: int
    experts: int
    topology: Topology

    @classmethod
    def parse(cls, text: str) -> Self:
        """The shape that is written as LxE:R/G or LxE:R/G:NODES/GROUPS.

        Raises:
            InvalidArgumentError: the text has another form, or breaks a rule of `Topology`.
        """
        found = _SPELLING.fullmatch(text)
        spelling = "LAYERSxEXPERTS:SLOTS/GPUS or LAYERSxEXPERTS:SLOTS/GPUS:NODES/GROUPS"
        if found is None:
            raise invalid("shape", f"{text!r} is not {spelling}, such as 58x256:288/32")
        layers, experts, *rest = (int(number) for number in found.groups(default="1"))
        require(layers >= 1, "shape", f"{text!r} has no layers")
        topology = Topology(*rest)
        topology.check_experts(experts)
        return cls(layers, experts, topology)

    def __str__(self) -> str:
        spread = self.topology
        text = f"{self.layers}x{self.experts}:{spread.num_replicas}/{spread.num_gpus}"
        if spread.num_nodes == spread.num_groups == 1:
            return text
        return f"{text}:{spread.num_nodes}/{spread.num_groups}"


def warm_shapes(
    shapes: Iterable[Shape], backend: BackendName, device: torch.device
) -> Iterator[Shape]:
    """Plan for each shape once with each effort, which compiles the backend's kernels.

    Args:
        shapes: of models that will be served.
        backend: see `backend_for`.
        device: see `backend_for`.

    Yields:
        Each shape, when its kernels are compiled.

    Raises:
        CannotWarmError: another backend had to make a plan.
    """
    fallbacks: list[str] = []

    def record(name: str, _reason: FallbackReason, detail: str) -> None:
        fallbacks.append(f"{name}: {detail}")

    # One backend for all shapes: it frees the memory that the next shape needs.
    chosen = backend_for(backend, device, record)
    for shape in shapes:
        load_LE = torch.arange(shape.experts, dtype=torch.float64).expand(shape.layers, -1)
        for effort in get_args(Effort):
            chosen.plan(load_LE, shape.topology, settings_for(effort))
        if fallbacks:
            raise CannotWarmError(f"{shape}: {'; '.join(fallbacks)}")
        yield shape
