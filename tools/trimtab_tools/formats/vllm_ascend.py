"""vllm-ascend: the JSON file of its static expert map.

It reads layers and devices by their positions, the same number of slots on each device.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trimtab_client.exceptions import invalid
from trimtab_tools.formats.layout import Array, SavedPlacement, array, entry, refuse_load

_LAYERS = "layer_list"
_DEVICES = "device_list"
_EXPERTS = "device_expert"

MARKS = (_LAYERS,)
"""Names by which its content is known."""


class VllmAscend:
    """See the module."""

    def load(self, content: Any, path: Path, key: str | None) -> Array:
        """There is none."""
        del content, key
        refuse_load(path, "vllm-ascend")

    def placement(self, content: Any, path: Path) -> Array:
        """See `Layout.placement`."""
        layers = [
            [entry(device, _EXPERTS, path) for device in entry(layer, _DEVICES, path)]
            for layer in entry(content, _LAYERS, path)
        ]
        phy2log_LGS = array(layers, path, _EXPERTS)
        if phy2log_LGS.ndim != 3:
            raise invalid(str(path), "devices do not all have the same number of experts")
        return phy2log_LGS.reshape(len(phy2log_LGS), -1)

    def content(self, saved: SavedPlacement, path: Path) -> Any:
        """See `Layout.content`.

        Raises:
            InvalidArgumentError: a device has an expert twice; vllm-ascend would lose a slot.
        """
        layers, gpus = len(saved.placement.phy2log), saved.placement.num_gpus
        phy2log_LGS = saved.placement.phy2log.reshape(layers, gpus, -1).tolist()
        for layer, devices in enumerate(phy2log_LGS):
            for gpu, experts in enumerate(devices):
                _check_distinct(experts, f"on GPU {gpu} in layer {layer}", path)
        listed = [
            {
                "layer_id": layer,
                "device_count": gpus,
                _DEVICES: [
                    {"device_id": gpu, _EXPERTS: experts} for gpu, experts in enumerate(devices)
                ],
            }
            for layer, devices in enumerate(phy2log_LGS)
        ]
        return {"moe_layer_count": layers, _LAYERS: listed}


def _check_distinct(experts: list[int], where: str, path: Path) -> None:
    twice = next((each for each in experts if experts.count(each) > 1), None)
    if twice is not None:
        why = f"expert {twice} is twice {where}, and vllm-ascend would lose a slot"
        raise invalid(str(path), why)
