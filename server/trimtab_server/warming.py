"""Compiles for models of given sizes ahead of their first request."""

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
    """The size of a model and of what it is served on.

    Attributes:
        layers: L.
        experts: E.
        topology: R, G, and where it is hierarchical nodes and groups.
    """

    layers: int
    experts: int
    topology: Topology

    @classmethod
    def parse(cls, text: str) -> Self:
        """The shape that is written LxE:R/G, or LxE:R/G:NODES/GROUPS.

        Raises:
            InvalidArgumentError: it is written in another way, or breaks a rule of `Topology`.
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
    """Have a backend plan for each shape once with each effort, which compiles what it needs.

    Args:
        shapes: of models that will be served.
        backend: see `backend_for`.
        device: likewise.

    Yields:
        Each shape, once it is done.

    Raises:
        CannotWarmError: the backend left a plan to another one.
    """
    passed_on: list[str] = []

    def note(name: str, _reason: FallbackReason, detail: str) -> None:
        passed_on.append(f"{name}: {detail}")

    # One for all of them: it makes room for the next shape by itself.
    chosen = backend_for(backend, device, note)
    for shape in shapes:
        load_LE = torch.arange(shape.experts, dtype=torch.float64).expand(shape.layers, -1)
        for effort in get_args(Effort):
            chosen.plan(load_LE, shape.topology, settings_for(effort))
        if passed_on:
            raise CannotWarmError(f"{shape}: {'; '.join(passed_on)}")
        yield shape
