"""vllm-ascend's own reader and writer of expert maps; runs in the engine's Python.

    python -m tests.engines.ascend_files FILE

Standard input has an expert map [L, devices, slots] as JSON. It is written to FILE by the one, and
what the other reads there is printed as JSON, if the input is empty only that. Nothing of both is
replaced but the accelerator's library, which is imported on the way.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from tests.engines.sglang_group import stand_in


def main() -> None:
    """Write and read."""
    stand_in("torch_npu")
    path = sys.argv[1]
    given = sys.stdin.read()
    if given:
        write(json.loads(given), path)
    print(json.dumps(read(path)))


def write(map_LGS: list[list[list[int]]], path: str) -> None:
    """Write a map by vllm-ascend's recorder."""
    from vllm_ascend.eplb.adaptor.vllm_adaptor import VllmEplbAdaptor

    experts = 1 + max(expert for layer in map_LGS for device in layer for expert in device)
    # What vllm-ascend has: the slot of each expert on a device, or -1.
    slot_LGE = torch.full((len(map_LGS), len(map_LGS[0]), experts), -1)
    for layer, devices in enumerate(map_LGS):
        for device, held in enumerate(devices):
            slot_LGE[layer, device, held] = torch.arange(len(held))
    first = type("FirstRank", (VllmEplbAdaptor,), {"rank_id": 0, "__init__": lambda _: None})()
    first._export_tensor_to_file(slot_LGE, path)


def read(path: str) -> list[Any]:
    """Read all layers of a map, as vllm-ascend does when it loads them."""
    from vllm_ascend.eplb.core.eplb_utils import expert_file_to_tensor

    layers = json.loads(Path(path).read_text())["moe_layer_count"]
    return [expert_file_to_tensor(path, layer)[0].tolist() for layer in range(layers)]


if __name__ == "__main__":
    main()
