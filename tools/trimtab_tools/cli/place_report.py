"""The report of `trimtab place`: as text, as JSON, and in a file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from trimtab_client.options import Topology
from trimtab_client.placement import Balance
from trimtab_client.results import Moves, PlaceResult
from trimtab_tools.cli import json_output
from trimtab_tools.cli.tables import table
from trimtab_tools.formats import SavedPlacement


class Report(NamedTuple):
    """A result, with the balance before it.

    Attributes:
        result: the answer of the solver.
        topology: of the request.
        before: balance of the layout that `layout` names.
        layout: "current", or "untouched" if the request has no current placement.
        seconds: how long the call took.
        solver: address of the server, or "this process".
    """

    result: PlaceResult
    topology: Topology
    before: Balance
    layout: str
    seconds: float
    solver: str


def as_text(report: Report) -> str:
    """The report as a table, for people."""
    layers, experts = report.result.placement.logcnt.shape
    topology = report.topology
    title = (
        f"{layers} layers of {experts} experts in {topology.num_replicas} slots on "
        f"{topology.num_gpus} GPUs, planned by {report.solver} in {report.seconds * 1e3:.0f} ms"
    )
    before, after = _imbalance(report.before), _imbalance(report.result.after)
    rows = [
        [f"  {name}", *(f"{number:.4f}" for number in numbers.values())]
        for name, numbers in ((report.layout, before), ("placed", after))
    ]
    return f"{title}\n\n{table(['imbalance', *before], rows)}\n{_moves_line(report)}"


def as_json(report: Report) -> str:
    """The report as one JSON document. A number that is not finite becomes null."""
    result = report.result
    document = {
        "summary": _summary(report),
        "placement": result.placement,
        "moves": list(_moves(result.moves)),
        "before": {"layout": report.layout, **_layers(report.before)},
        "after": _layers(result.after),
    }
    return json_output.as_json(document, indent=None)


def saved(report: Report, first_layer: int) -> SavedPlacement:
    """The result, to be written to a file."""
    result = report.result
    arrays = {
        "move_layer": result.moves.layer,
        "move_slot": result.moves.slot,
        "move_expert": result.moves.expert,
        "move_source_gpus": result.moves.source_gpus,
        "imbalance_before": report.before.imbalance,
        "imbalance_after": result.after.imbalance,
        "imbalance_bound": result.after.bound,
    }
    return SavedPlacement(result.placement, as_json(report), arrays, first_layer)


def _imbalance(balance: Balance) -> dict[str, float]:
    """Statistics over layers; balancedness is the mean of 1 / imbalance."""
    return {
        "worst": float(balance.imbalance.max()),
        "median": float(np.median(balance.imbalance)),
        "mean": float(balance.imbalance.mean()),
        "balancedness": float(balance.balancedness.mean()),
        "gap": float(balance.gap.mean()),
    }


def _layers(balance: Balance) -> dict[str, list[float]]:
    """The balance of each layer."""
    return {
        "imbalance": balance.imbalance.tolist(),
        "bound": balance.bound.tolist(),
        "gap": balance.gap.tolist(),
    }


def _moves_line(report: Report) -> str:
    if report.layout == "untouched":
        return "moves: not counted without --current\n"
    layers = len(report.result.placement.phy2log)
    per_layer_L = report.result.moves.per_layer(layers)
    each = f"{per_layer_L.mean():.1f} a layer (most {per_layer_L.max()})"
    return f"moves: {len(report.result.moves)}, {each}\n"


def _summary(report: Report) -> dict[str, Any]:
    layers, experts = report.result.placement.logcnt.shape
    return {
        "num_layers": layers,
        "num_experts": experts,
        **vars(report.topology),
        "solver": report.solver,
        "seconds": report.seconds,
        "moves": len(report.result.moves),
        "before": _imbalance(report.before),
        "after": _imbalance(report.result.after),
    }


def _moves(moves: Moves) -> Iterator[dict[str, Any]]:
    columns = (moves.layer, moves.slot, moves.expert, moves.source_gpus)
    for layer, slot, expert, gpus in zip(*(column.tolist() for column in columns), strict=True):
        sources = [gpu for gpu in gpus if gpu >= 0]
        yield {"layer": layer, "slot": slot, "expert": expert, "source_gpus": sources}
