"""vLLM's own load balancer on four CPU ranks, with weights that really move; run by `groups.py`.

    python -m tests.engines.vllm_group

`ranks.py` says what it reads; a group starts with {"use_async": true, "models": 1}. Nothing of
vLLM is replaced but events, streams and the platform, which need an accelerator. The weights of
expert e of layer l are all 1000 l + e, so that a slot with wrong weights is seen.
"""

from __future__ import annotations

import importlib
import time
import types
from typing import Any

import numpy as np
import torch

RANKS, LAYERS, EXPERTS, SPARE, WIDTH = 4, 6, 16, 4, 3
SLOTS = EXPERTS + SPARE
LOCAL = SLOTS // RANKS
INTERVAL = WINDOW = 8
TOKENS = 4096
"""Of one rank in one step and layer."""


class _Event:
    """What `torch.Event` is to vLLM, where nothing runs on a device."""

    def __init__(self, *_: Any, **__: Any) -> None: ...
    def record(self, *_: Any) -> None: ...
    def wait(self, *_: Any) -> None: ...
    def synchronize(self) -> None: ...
    def elapsed_time(self, _: Any) -> float:
        return 0.0


def stand_in_for_an_accelerator() -> None:
    """Give torch and vLLM's configuration what only an accelerator has."""
    torch.Event = torch.Stream = _Event
    torch.accelerator.current_stream = lambda *_: _Event()
    torch.accelerator.set_stream = lambda *_: None
    torch.accelerator.set_device_index = lambda *_: None
    torch.accelerator.current_accelerator = lambda *_, **__: torch.device("cpu")
    import vllm.config.parallel as config

    platform = config.current_platform

    class Platform:
        def is_cuda_alike(self) -> bool:
            return True

        def __getattr__(self, name: str) -> Any:
            return getattr(platform, name)

    config.current_platform = Platform()


def make_model(name: int) -> Any:
    """A model with what vLLM's balancer asks of one. `name` is added to all weights."""
    from vllm.distributed.eplb.eplb_state import EplbLayerState, EplbState

    rank = torch.distributed.get_rank()
    first = EplbState.build_initial_global_physical_to_logical_map(EXPERTS, SPARE)
    model = types.SimpleNamespace(
        num_moe_layers=LAYERS,
        num_expert_groups=1,
        num_logical_experts=EXPERTS,
        num_routed_experts=EXPERTS,
        num_redundant_experts=SPARE,
        num_physical_experts=SLOTS,
        num_local_physical_experts=LOCAL,
        moe_layers=[types.SimpleNamespace(eplb_state=EplbLayerState()) for _ in range(LAYERS)],
        name=name,
    )
    own = first[rank * LOCAL : (rank + 1) * LOCAL]
    model.expert_weights = [
        [torch.stack([weights(name, layer, e) for e in own])] * 1 for layer in range(LAYERS)
    ]

    def set_eplb_state(load: Any, log2phy: Any, counts: Any) -> None:
        for index, layer in enumerate(model.moe_layers):
            layer.eplb_state.set_layer_state(index, load, log2phy, counts)

    model.set_eplb_state = set_eplb_state
    return model


def weights(name: int, layer: int, expert: int) -> torch.Tensor:
    """The weights of an expert."""
    return torch.full((WIDTH,), float(10_000 * name + 1000 * layer + expert))


class Rank:
    """One rank: its balancer, its models, and what it has seen."""

    def __init__(self, rank: int, port: int, *, use_async: bool, models: int) -> None:
        from vllm.config import ParallelConfig, VllmConfig, set_current_vllm_config
        from vllm.config.parallel import EPLBConfig
        from vllm.distributed import parallel_state
        from vllm.distributed.eplb.eplb_state import EplbState

        self.rank = rank
        eplb = EPLBConfig(
            window_size=WINDOW,
            step_interval=INTERVAL,
            num_redundant_experts=SPARE,
            use_async=use_async,
            communicator="torch_gloo",
        )
        parallel = ParallelConfig(
            tensor_parallel_size=RANKS,
            enable_expert_parallel=True,
            enable_eplb=True,
            distributed_executor_backend="external_launcher",
            eplb_config=eplb,
        )
        config = VllmConfig(parallel_config=parallel)
        with set_current_vllm_config(config):
            address = f"tcp://127.0.0.1:{port}"
            parallel_state.init_distributed_environment(RANKS, rank, address, rank, "gloo")
            config.model_config = types.SimpleNamespace(is_moe=True)
            parallel_state.initialize_model_parallel(RANKS, 1, backend="gloo")
        self.state = EplbState(parallel, torch.device("cpu"))
        self.state.device_index = 0
        for name in range(models):
            key = f"model{name}"
            described = types.SimpleNamespace(model=key, compute_hash=lambda key=key: key)
            self.state.add_model(make_model(name), described)
        self.models = list(self.state.model_states.values())
        self.state.start_async_loop()
        self.maps = [each.physical_to_logical_map.clone() for each in self.models]
        self.before = [each.tolist() for each in self.maps]
        self.processed_LR = np.zeros((LAYERS, SLOTS), np.int64)
        self.rng = np.random.default_rng(5)
        self.steps = 0
        torch.distributed.barrier()

    def resized(self) -> bool:
        """Whether vLLM's own policy answers where a group grows or shrinks."""
        from trimtab_vllm import hooks
        from vllm.distributed.eplb.policy.default import DefaultEplbPolicy

        weight = torch.from_numpy(self.rng.integers(0, 100, (LAYERS, EXPERTS)))
        in_force = self.models[0].physical_to_logical_map
        new_slots = torch.full((LAYERS, LOCAL), -1)
        grown = (torch.cat([in_force, new_slots], 1), SLOTS + LOCAL, RANKS + 1)
        shrunk = (torch.cat([in_force, in_force[:, :LOCAL]], 1), SLOTS, RANKS)
        alike = []
        for old, slots, ranks in (grown, shrunk):
            asked = weight, slots, 1, 1, ranks, old
            with hooks._noted(self.state, self.models, is_traffic=True):
                answer = self.state.policy.rebalance_experts(*asked)
            alike.append(torch.equal(answer, DefaultEplbPolicy.rebalance_experts(*asked)))
        return all(alike)

    def run(self, command: dict[str, Any]) -> dict[str, Any]:
        """Take steps, and say what happened in them."""
        if command.get("resize"):
            return {"own": self.resized()}
        seen: dict[str, Any] = {"rebalances": 0, "moved": 0, "switched": 0, "wrong": 0}
        if self.rank == command.get("plant"):
            self.models[0].model.expert_weights[0][0][0] += 0.5
        self.processed_LR[:] = 0
        for _ in range(command["steps"]):
            if self.steps % (INTERVAL * command.get("every", 1)) == 0:
                self.popularity = self.rng.random((len(self.models), LAYERS, EXPERTS)) ** 4 + 0.01
            if self.rank == command.get("late") and self.steps % INTERVAL == INTERVAL - 1:
                time.sleep(0.2)
            if not command.get("idle"):
                self.count_tokens()
            counter = self.state.expert_rearrangement_step
            self.state.step()
            self.look(seen, rebalanced=self.state.expert_rearrangement_step < counter)
            self.steps += 1
            if self.state.is_async:
                time.sleep(command.get("pause", 0.002))
        seen["maps"] = [each.physical_to_logical_map.tolist() for each in self.models]
        seen["processed"] = self.processed_LR.tolist()
        worker = self.state.async_worker
        seen["worker_lives"] = worker is None or worker.is_alive()
        return seen

    def count_tokens(self) -> None:
        """Route tokens: each goes to a replica of its expert."""
        if not bool(self.state.should_record_tensor):
            return
        for model_state, popularity_LE in zip(self.models, self.popularity, strict=True):
            for layer in range(LAYERS):
                share_E = popularity_LE[layer] / popularity_LE[layer].sum()
                expert_R = model_state.physical_to_logical_map[layer].numpy()
                share_R = share_E[expert_R] / np.bincount(expert_R, minlength=EXPERTS)[expert_R]
                counts_R = self.rng.multinomial(TOKENS, share_R / share_R.sum())
                model_state.expert_load_pass[layer] += torch.from_numpy(counts_R).int()
                self.processed_LR[layer] += counts_R

    def look(self, seen: dict[str, Any], *, rebalanced: bool) -> None:
        """Compare the weights in each slot with those of the expert that the map has there."""
        if rebalanced:
            now = [each.physical_to_logical_map.tolist() for each in self.models]
            seen["rebalances"] += 1
            seen["moved"] += now != self.before
            self.before = now
        for index, model_state in enumerate(self.models):
            now = model_state.physical_to_logical_map
            seen["switched"] += not torch.equal(now, self.maps[index])
            self.maps[index] = now.clone()
            own_LS = now[:, self.rank * LOCAL : (self.rank + 1) * LOCAL].tolist()
            for layer, own_S in enumerate(own_LS):
                held = model_state.model.expert_weights[layer][0]
                right = torch.stack([weights(index, layer, expert) for expert in own_S])
                seen["wrong"] += int((held != right).any(1).sum())


def make_rank(rank: int, port: int, options: dict[str, Any]) -> Rank:
    """A rank with the plug-ins that are installed, as each process of vLLM loads them."""
    from vllm.plugins import load_general_plugins

    load_general_plugins()
    return Rank(rank, port, **options)


if __name__ == "__main__":
    from tests.engines.ranks import serve

    stand_in_for_an_accelerator()
    # Once, before the ranks fork: it takes long.
    importlib.import_module("vllm.distributed.eplb.eplb_state")

    serve(RANKS, make_rank)
