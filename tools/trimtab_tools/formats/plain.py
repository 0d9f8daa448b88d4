"""The layout of Trimtab's own files: named arrays, or one array without a name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trimtab_client.placement import Placement
from trimtab_tools.formats.layout import Array, SavedPlacement, array, chosen, entry, has, unnamed


class Plain:
    """`load` and `phy2log`, or whatever array the user names.

    Args:
        kind: of the files: "npz", "npy" or "json".
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def load(self, content: Any, path: Path, key: str | None) -> Array:
        """See `Layout.load`. The only array needs no name."""
        if not isinstance(content, Mapping):
            return unnamed(content, key, path, "the load")
        if key is None:
            key = next(iter(content)) if len(content) == 1 else "load"
        return chosen(content, key, path)

    def placement(self, content: Any, path: Path) -> Array:
        """See `Layout.placement`. `trimtab place` writes more beside the placement."""
        if has(content, "placement") and isinstance(content["placement"], Mapping):
            content = content["placement"]
        if isinstance(content, Mapping):
            content = entry(content, "phy2log", path)
        return array(content, path, "phy2log")

    def content(self, saved: SavedPlacement, path: Path) -> Any:
        """See `Layout.content`: for .json a document, for the others arrays."""
        del path
        match self._kind:
            case "json":
                return saved.document
            case "npz":
                return {**_arrays(saved.placement), **saved.arrays}
        return saved.placement.phy2log


def _arrays(placement: Placement) -> dict[str, Any]:
    """The arrays of a placement in an .npz file."""
    return {
        "phy2log": placement.phy2log,
        "log2phy": placement.log2phy,
        "logcnt": placement.logcnt,
        "num_experts": placement.num_experts,
        "num_gpus": placement.num_gpus,
        "digest": np.frombuffer(placement.digest, np.uint8),
    }
