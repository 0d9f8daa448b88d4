"""TensorRT-LLM: the YAML file of its static MoE load balancer, by the numbers of model layers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trimtab_client.exceptions import invalid
from trimtab_tools.formats.layout import Array, SavedPlacement, array, entry, refuse_load

_SLOTS = "num_slots"
_LAYERS = "initial_global_assignments"

MARKS = _LAYERS, _SLOTS
"""Names by which its content is known."""


class TensorRtLlm:
    """See the module."""

    def load(self, content: Any, path: Path, key: str | None) -> Array:
        """There is none."""
        del content, key
        refuse_load(path, "tensorrt-llm")

    def placement(self, content: Any, path: Path) -> Array:
        """See `Layout.placement`: the layers in ascending order of their numbers."""
        layers = entry(content, _LAYERS, path)
        # Checked one by one: YAML can repeat a list in itself, and arrays of that would be huge.
        if not (
            isinstance(layers, Mapping)
            and all(isinstance(number, int) for number in layers)
            and all(isinstance(row, list) for row in layers.values())
        ):
            why = f"{_LAYERS} is not a list of experts by the number of each layer"
            raise invalid(str(path), why)
        for number, row in layers.items():
            for slot, expert in enumerate(row):
                if not isinstance(expert, int) or isinstance(expert, bool):
                    kind = type(expert).__name__
                    shown = kind if isinstance(expert, list | dict) else f"{expert!r:.60}"
                    where = f"{_LAYERS}: layer {number}, slot {slot}"
                    raise invalid(str(path), f"{where}: {shown} is not an integer")
        phy2log_LR = array([layers[number] for number in sorted(layers)], path, _LAYERS)
        slots = content.get(_SLOTS, phy2log_LR.shape[-1])
        if phy2log_LR.ndim != 2 or phy2log_LR.shape[1] != slots:
            found = list(phy2log_LR.shape)
            raise invalid(str(path), f"{_LAYERS} is {found}, but {_SLOTS} is {slots}")
        return phy2log_LR

    def content(self, saved: SavedPlacement, path: Path) -> Any:
        """See `Layout.content`. With 0 updates, the engine leaves the placement as it is."""
        del path
        rows = enumerate(saved.placement.phy2log.tolist(), saved.first_layer)
        return {
            _SLOTS: saved.placement.phy2log.shape[1],
            _LAYERS: dict(rows),
            "layer_updates_per_iter": 0,
        }
