"""SGLang's own load balancer on four CPU ranks, with weights that really move; run by `groups.py`.

    python -m tests.engines.sglang_group

`ranks.py` says what it reads; a group starts with {"chunk": 2}, and may have the "location" that
SGLang starts from, the "recorder" mode and the "dispatch" algorithm. {"dump": FOLDER} lets the
recorder write there. The settings that SGLang keeps globally are replaced, and torchvision; nothing
of its balancer is. The weights of expert e of layer l are all 1000 l + e, so that a slot with wrong
weights is seen.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import os
import sys
import time
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

RANKS, LAYERS, EXPERTS, SPARE, WIDTH = 4, 5, 16, 4, 3
SLOTS = EXPERTS + SPARE
LOCAL = SLOTS // RANKS
INTERVAL = 8
DENSE = 1
"""The first layers have no experts to route to."""

TOKENS = 512
"""Of one rank in one step and layer."""


class _Anything(types.ModuleType):
    """A module that is imported, and not used."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return stand_in(f"{self.__name__}.{name}")

    def __call__(self, *_: Any, **__: Any) -> Any:
        return self


def stand_in(name: str) -> _Anything:
    """Put a module there that can be imported, and not used."""
    module = sys.modules[name] = _Anything(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    module.__path__ = []
    return module


def stand_in_for_what_is_not_installed() -> None:
    """Let SGLang's utilities import torchvision and datasets."""
    inside = ("io", "transforms", "transforms.v2", "transforms.functional")
    for name in ("datasets", "torchvision", *(f"torchvision.{each}" for each in inside)):
        stand_in(name)


def configure(rank: int, chunk: int | None, location: str, recorder: str, dispatch: str) -> None:
    """Replace what SGLang's processes keep globally: settings, sizes and the device."""
    from sglang.srt import runtime_context
    from sglang.srt.eplb import eplb_manager, expert_distribution, expert_location
    from sglang.srt.eplb import expert_location_updater as updater

    moe = types.SimpleNamespace(
        eplb_rebalance_layers_per_chunk=chunk,
        eplb_rebalance_num_iterations=INTERVAL,
        expert_distribution_recorder_buffer_size=INTERVAL,
        expert_distribution_recorder_mode=recorder,
        moe_a2a_backend="deepep",
        deepep_mode="normal",
        ep_dispatch_algorithm=dispatch,
        ep_num_redundant_experts=SPARE,
        eplb_algorithm="auto",
        eplb_min_rebalancing_utilization_threshold=1.0,
        ep_join_mode=None,
        elastic_ep_backend=None,
        expert_balancedness_report_mode="off",
        init_expert_location=location,
    )
    parallel = types.SimpleNamespace(
        ep_size=RANKS,
        nnodes=1,
        tp_rank=rank,
        moe_ep_rank=rank,
        tp_size=RANKS,
        elastic_ep_initial_size=None,
        ep_join_rank_offset=0,
    )
    batch = types.SimpleNamespace(enable_two_batch_overlap=False)
    execution = types.SimpleNamespace(moe=moe, overlap=batch)
    device = types.SimpleNamespace(device="cpu")
    resources = types.SimpleNamespace(
        expert_location_metadata=None, expert_distribution_recorder=None, lplb_solvers={}
    )
    places = (runtime_context, eplb_manager, expert_location, updater, expert_distribution)
    values = {
        "get_exec": execution,
        "get_parallel": parallel,
        "get_resources": resources,
        "get_device_namespace": device,
    }
    for module in places:
        for name, value in values.items():
            if hasattr(module, name):
                setattr(module, name, lambda value=value: value)
    expert_location.get_device = updater.get_device = lambda: device
    expert_distribution.get_device = lambda: "cpu"
    accelerator = types.SimpleNamespace(
        empty_cache=lambda: None,
        synchronize=lambda: None,
        is_current_stream_capturing=lambda: False,
    )
    torch.get_device_module = lambda *_: accelerator
    sizes = expert_location.ModelConfigForExpertLocation(LAYERS, EXPERTS, None)
    expert_location.ModelConfigForExpertLocation.from_model_config = staticmethod(lambda _: sizes)
    expert_location._prefer_same_node_experts = lambda: True
    expert_distribution.reports_expert_balancedness = lambda: False
    expert_distribution.megamoe_prefill_only_recorder_enabled = lambda: False
    setup = types.ModuleType("sglang.srt.model_executor.model_runner_components.moe_ep_setup")
    setup.init_lplb_solvers = lambda **_: None
    sys.modules[setup.__name__] = setup


def weights(layer: int, expert: int) -> torch.Tensor:
    """The weights of an expert."""
    return torch.full((WIDTH,), float(1000 * layer + expert))


class Rank:
    """One rank: its recorder, its manager, and what it has seen."""

    def __init__(
        self,
        rank: int,
        port: int,
        *,
        chunk: int | None,
        location: str = "trivial",
        recorder: str = "stat",
        dispatch: str = "dynamic",
    ) -> None:
        address = f"tcp://127.0.0.1:{port}"
        torch.distributed.init_process_group(
            "gloo", init_method=address, rank=rank, world_size=RANKS
        )
        configure(rank, chunk, location, recorder, dispatch)
        from sglang.srt.eplb import expert_distribution, expert_location
        from sglang.srt.eplb.eplb_manager import EPLBManager
        from sglang.srt.eplb.expert_location_updater import ExpertLocationUpdater

        first = expert_location.compute_initial_expert_location_metadata(None, rank)
        expert_location.set_global_expert_location_metadata(first)
        self.rank, self.dispatch = rank, dispatch
        self.metadata = expert_location.get_global_expert_location_metadata()
        self.recorder = expert_distribution.ExpertDistributionRecorder.init_new(
            self.metadata, rank=rank
        )
        expert_distribution.set_global_expert_distribution_recorder(self.recorder)
        self.held = {
            layer: [torch.stack([weights(layer, e) for e in self.own(layer)])]
            for layer in range(DENSE, LAYERS)
        }
        model = types.SimpleNamespace(routed_experts_weights_of_layer=self.held)
        moves, files = ExpertLocationUpdater(), types.SimpleNamespace(update_weights_from_disk=None)
        self.manager = EPLBManager(
            model_config=None,
            get_model=lambda: model,
            get_expert_location_updater=lambda: moves,
            get_expert_backup_client=lambda: None,
            get_weight_updater=lambda: files,
        )
        self.map = self.metadata.physical_to_logical_map.clone()
        # With chunks, rebalances are further apart than their interval.
        self.begun, rebalance = 0, self.manager.rebalance

        def counted() -> Iterator[None]:
            self.begun += 1
            yield from rebalance()

        self.manager.rebalance = counted
        self.before = self.map.tolist()
        self.processed_LR = np.zeros((LAYERS, SLOTS), np.int64)
        self.routed = np.zeros((LAYERS, EXPERTS), np.int64)
        self.rng = np.random.default_rng(7 + rank)
        self.shared = np.random.default_rng(5)
        self.steps = 0
        torch.distributed.barrier()

    def own(self, layer: int) -> list[int]:
        """The experts in this rank's slots, by the map."""
        slots = slice(self.rank * LOCAL, (self.rank + 1) * LOCAL)
        experts: list[int] = self.metadata.physical_to_logical_map[layer, slots].tolist()
        return experts

    def run(self, command: dict[str, Any]) -> dict[str, Any]:
        """Take steps, and say what happened in them; or let the recorder write."""
        if "dump" in command:
            os.environ["SGLANG_EXPERT_DISTRIBUTION_RECORDER_DIR"] = command["dump"]
            self.recorder.dump_record(output_mode="file")
            return {"routed": self.routed.tolist()}
        if command.get("resize"):
            return {"own": self.resized()}
        if "split" in command:
            return {"split": self.told().split}
        seen: dict[str, Any] = {"rebalances": 0, "moved": 0, "switched": 0, "wrong": 0}
        self.processed_LR[:] = 0
        if self.rank == command.get("plant"):
            self.held[DENSE][0][0] += 0.5
        for _ in range(command["steps"]):
            if self.steps % INTERVAL == 0:
                self.popularity = self.shared.random((LAYERS, EXPERTS)) ** 4 + 0.01
            if self.rank == command.get("late") and self.steps % INTERVAL == INTERVAL - 1:
                time.sleep(0.2)
            self.route(idle=command.get("idle", False))
            begun = self.begun
            self.manager.on_forward_pass_end()
            self.steps += 1
            self.look(seen, rebalanced=self.begun > begun)
        seen["maps"] = self.map.tolist()
        seen["processed"] = self.processed_LR.tolist()
        seen["worker_lives"] = True
        return seen

    def resized(self) -> bool:
        """Whether SGLang's own algorithms answer where ranks have come or died."""
        from sglang.srt.elastic_ep.elastic_ep import ElasticEPStateManager
        from sglang.srt.eplb import eplb_algorithms
        from sglang.srt.eplb.eplb_algorithms import EplbAlgorithm, deepseek, elasticity_aware

        load = torch.from_numpy(self.shared.integers(0, 100, (1, LAYERS, EXPERTS)))
        sizes = SLOTS + LOCAL, None, 1, RANKS + 1
        grown = eplb_algorithms.rebalance_experts(
            load, SLOTS + LOCAL, LOCAL, None, 1, EplbAlgorithm.deepseek
        )
        theirs = deepseek.rebalance_experts(load.sum(0), *sizes, enable_hierarchical=False)
        alive = torch.tensor([1, 1, 0, 1], dtype=torch.int32)
        few = load[:, :, : (RANKS - 1) * LOCAL]  # experts for which three ranks have room
        ElasticEPStateManager._instance = types.SimpleNamespace(
            active_ranks=alive, has_scaled=False
        )
        shrunk = eplb_algorithms.rebalance_experts(
            few, SLOTS, LOCAL, None, 1, EplbAlgorithm.elasticity_aware
        )
        ElasticEPStateManager._instance = None
        left = elasticity_aware.rebalance_experts(
            few.sum(0), SLOTS, None, 1, RANKS, enable_hierarchical=False, active_ranks=alive
        )
        pairs = [(grown[0], theirs[0]), (shrunk[0], left[0])]
        return all(torch.equal(answer, own) for answer, own in pairs)

    def slots_of(self, layer: int, tokens: torch.Tensor) -> torch.Tensor:
        """The slot to which each token goes."""
        near = self.metadata.logical_to_rank_dispatch_physical_map
        if self.dispatch == "static":
            return near[layer][tokens].long()
        replicas = self.metadata.logical_to_all_physical_map_num_valid[layer][tokens]
        turn = torch.arange(len(tokens)) % replicas
        return self.metadata.logical_to_all_physical_map[layer][tokens, turn]

    def told(self) -> Any:
        """What the server would be told of this model."""
        from trimtab_sglang import hooks

        algorithm = types.SimpleNamespace(name="deepseek")
        load = torch.zeros((1, LAYERS, EXPERTS), dtype=torch.int32)
        own = load, SLOTS, LOCAL, None, 1, algorithm
        return hooks._load_of(self.manager, self.map, own, None)

    def route(self, *, idle: bool) -> None:
        """One forward pass: each token goes to a replica of its expert."""
        with self.recorder.with_forward_pass(self.steps, None):
            for layer in range(DENSE, LAYERS):
                share_E = self.popularity[layer] / self.popularity[layer].sum()
                tokens = torch.from_numpy(
                    self.rng.choice(EXPERTS, 0 if idle else TOKENS, p=share_E)
                )
                self.routed[layer] += np.bincount(tokens, minlength=EXPERTS)
                slots = self.slots_of(layer, tokens)
                self.processed_LR[layer] += np.bincount(slots, minlength=SLOTS)
                with self.recorder.with_current_layer(layer):
                    self.recorder.on_select_experts(slots)

    def look(self, seen: dict[str, Any], *, rebalanced: bool) -> None:
        """Compare the weights in each slot with those of the expert that the map has there."""
        now = self.metadata.physical_to_logical_map
        if rebalanced:
            seen["rebalances"] += 1
            seen["moved"] += now.tolist() != self.before
            self.before = now.tolist()
        seen["switched"] += not torch.equal(now, self.map)
        assert torch.equal(now[:DENSE], self.map[:DENSE]), "a layer without experts was moved"
        self.map = now.clone()
        for layer, (held,) in self.held.items():
            right = torch.stack([weights(layer, expert) for expert in self.own(layer)])
            seen["wrong"] += int((held != right).any(1).sum())


def make_rank(rank: int, port: int, options: dict[str, Any]) -> Rank:
    """A rank with the plug-ins that are installed, as each process of SGLang loads them."""
    from sglang.srt.plugins import load_plugins

    load_plugins()
    return Rank(rank, port, **options)


if __name__ == "__main__":
    from tests.engines.ranks import serve

    stand_in_for_what_is_not_installed()
    # Once, before the ranks fork: it takes long.
    importlib.import_module("sglang.srt.eplb.eplb_manager")

    serve(RANKS, make_rank)
