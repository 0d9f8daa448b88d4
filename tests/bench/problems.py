"""The problems on which planners are compared: loads of models, and topologies."""

from __future__ import annotations

from typing import NamedTuple

from tests.bench.loads import Loads, lognormal, realistic, trace, windows
from trimtab_server.domain.topology import Topology


class Problem(NamedTuple):
    """A load [L, E] and the topology on which it is placed."""

    name: str
    load: Loads
    topology: Topology


TRACES = {
    "gptoss20b_phases": Topology(40, 8),
    "gptoss20b_mixed": Topology(40, 8),
    "esft_dsv2lite": Topology(80, 8),
    "olmoe_domains": Topology(80, 8),
    "mixtral8x7b_domains": Topology(12, 4),
}
"""All of `examples/traces`; many windows of each are solved as one batch of rows."""

_SYNTHETIC = (
    (58, 256, Topology(288, 32)),
    (58, 256, Topology(320, 64)),
    (58, 256, Topology(288, 72)),
    (48, 128, Topology(160, 16)),
    (61, 384, Topology(448, 64)),
    (94, 128, Topology(160, 32)),
    (61, 256, Topology(1024, 512)),
)
_HIERARCHICAL = Topology(288, 32, num_nodes=4, num_groups=8)


def problems(*, quick: bool = False) -> list[Problem]:
    """All problems; with `quick` two tiny ones of the same kinds instead."""
    if quick:
        return [
            _named("realistic, grouped", realistic(3, 16, 4), Topology(24, 4, 2, 4)),
            _named("realistic", realistic(4, 16, 4), Topology(20, 4)),
        ]
    return [
        _named("realistic, grouped", realistic(), _HIERARCHICAL),
        _named("lognormal, grouped", lognormal(), _HIERARCHICAL),
        *(_named("realistic", realistic(L, E), topology) for L, E, topology in _SYNTHETIC),
        _named("gptoss20b_phases, one window", trace("gptoss20b_phases")[0], Topology(40, 8)),
        *(_named(name, windows(name), topology) for name, topology in TRACES.items()),
    ]


def shape_of(load: Loads, topology: Topology) -> str:
    """Text like "58 x 256 -> 288 / 32": layers, experts, slots, GPUs."""
    layers, experts = load.shape
    groups = f", {topology.num_groups} groups, {topology.num_nodes} nodes"
    return (
        f"{layers} x {experts} -> {topology.num_replicas} / {topology.num_gpus}"
        f"{groups if topology.num_parts > 1 else ''}"
    )


def _named(kind: str, load: Loads, topology: Topology) -> Problem:
    return Problem(f"{kind}: {shape_of(load, topology)}", load, topology)
