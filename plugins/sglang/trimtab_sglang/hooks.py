"""SGLang's hooks: around the planning of a map, and around those who know what it is about.

A rebalance knows the weights. The recorder knows what each slot has processed: with "static"
dispatch, which prefers near replicas, an expert's replicas do not share its tokens evenly.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from sglang.srt import runtime_context
from sglang.srt.elastic_ep.elastic_ep import ElasticEPStateManager
from sglang.srt.eplb import eplb_algorithms, expert_distribution
from sglang.srt.eplb.eplb_manager import EPLBManager
from sglang.srt.eplb.expert_location import get_global_expert_location_metadata
from sglang.srt.plugins.hook_registry import HookRegistry, HookType

from trimtab_client import Placement, Split, Topology
from trimtab_client.plugin import IntArray, Leader, ModelLoad, agreed, changed_signatures

logger = logging.getLogger("sglang.trimtab")

Maps = tuple[torch.Tensor, torch.Tensor, torch.Tensor]

_PLAN = "sglang.srt.eplb.eplb_algorithms.rebalance_experts"
_COUNT = "sglang.srt.eplb.expert_distribution._convert_global_physical_count_to_logical_count"
_REBALANCE = "sglang.srt.eplb.eplb_manager.EPLBManager.rebalance"
_KNOWN = {
    "rebalance_experts": (
        eplb_algorithms.rebalance_experts,
        (
            *("tokens_per_expert", "num_physical_experts", "num_local_physical_experts"),
            *("num_groups", "num_nodes", "algorithm"),
        ),
    ),
    "EPLBManager.rebalance": (EPLBManager.rebalance, ("self",)),
    "_convert_global_physical_count_to_logical_count": (
        expert_distribution._convert_global_physical_count_to_logical_count,  # noqa: SLF001
        (
            *("global_physical_count", "num_layers", "num_logical_experts"),
            "physical_to_logical_map",
        ),
    ),
}


def unknown_parts() -> str:
    """Which parts of this SGLang are not as this plug-in knows them; empty if all are."""
    return "; ".join(changed_signatures(_KNOWN))


def install(leader: Leader) -> None:
    """Register the hooks, in which the leader asks the server, on rank 0."""
    hooks = _Hooks(leader)
    HookRegistry.register(_PLAN, hooks.plan, HookType.AROUND)
    HookRegistry.register(_COUNT, hooks.count, HookType.AROUND)
    HookRegistry.register(_REBALANCE, hooks.rebalance, HookType.AROUND)


class _Hooks:
    def __init__(self, leader: Leader) -> None:
        self._leader = leader
        self._manager: Any = None
        self._counts: torch.Tensor | None = None

    def rebalance(self, original: Any, manager: Any) -> Any:
        """Note who rebalances: it knows the model, and how often it rebalances."""
        self._manager = manager
        return original(manager)

    def count(
        self, original: Any, global_physical_count: torch.Tensor, *args: Any, **named: Any
    ) -> Any:
        """Note what this rank has sent to each slot, given as [steps, L, R]."""
        if _dispatch() == "static":
            # Added up now: the recorder empties its buffer after this.
            self._counts = global_physical_count.sum(0, dtype=torch.int64)
        return original(global_physical_count, *args, **named)

    def plan(
        self,
        original: Callable[..., Maps],
        tokens_per_expert: torch.Tensor,
        num_physical_experts: int,
        num_local_physical_experts: int,
        num_groups: int | None,
        num_nodes: int,
        algorithm: Any,
    ) -> Maps:
        """The maps for a load: SGLang's, or those that all ranks have agreed on."""
        sizes = num_physical_experts, num_local_physical_experts
        own = tokens_per_expert, *sizes, num_groups, num_nodes, algorithm
        in_force = _in_force(num_physical_experts, algorithm)
        if in_force is None or self._manager is None:
            return original(*own)
        load, slots = None, self._slot_counts(in_force)
        if torch.distributed.get_rank() == 0:
            load = _load_of(self._manager, in_force, own, slots)
        if self._leader.observes:
            if load is not None:
                self._leader.tell(load)
            return original(*own)
        # From here on, all ranks do the same, and only the broadcast waits for another.
        target = None if load is None else self._leader.ask(load)
        device, experts = in_force.device, tokens_per_expert.shape[-1]

        def broadcast(message: IntArray) -> None:
            # As SGLang does it for groups that have grown.
            there = torch.from_numpy(message).to(device)
            torch.distributed.broadcast(there, src=0)
            message[:] = there.cpu().numpy()

        agreed_LR = agreed(target, in_force.cpu().numpy(), broadcast)
        maps = Placement.of(agreed_LR, experts, num_physical_experts // num_local_physical_experts)
        three = (maps.phy2log, maps.log2phy, maps.logcnt)
        phy2log, log2phy, logcnt = (torch.tensor(each, dtype=torch.int64) for each in three)
        return phy2log, log2phy, logcnt

    def _slot_counts(self, in_force: torch.Tensor) -> torch.Tensor | None:
        """What all ranks have sent to each slot, [L, R]; None unless the dispatch is uneven."""
        counts, self._counts = self._counts, None
        if counts is None or counts.shape != in_force.shape:
            return None
        # The ranks agree on all of the above. SGLang adds the counts of experts up likewise.
        torch.distributed.all_reduce(counts)
        return counts


def _dispatch() -> str | None:
    """How SGLang chooses among the replicas of an expert."""
    name: str | None = runtime_context.get_exec().moe.ep_dispatch_algorithm
    return name


def _in_force(num_physical_experts: int, algorithm: Any) -> torch.Tensor | None:
    """The map in force [L, R]; None if it cannot stay, or if not all ranks plan."""
    elastic = ElasticEPStateManager.instance()
    metadata = get_global_expert_location_metadata()
    if metadata is None or "elasticity" in algorithm.name:
        return None
    if elastic is not None and elastic.has_scaled:
        # Only one rank plans for a group that has grown.
        return None
    in_force: torch.Tensor = metadata.physical_to_logical_map
    return in_force if in_force.shape[1] == num_physical_experts else None


def _load_of(
    manager: Any,
    in_force: torch.Tensor,
    own: tuple[Any, ...],
    slot_counts: torch.Tensor | None,
) -> ModelLoad | None:
    """What the server is told; None if the engine keeps it elsewhere than is known."""
    counts, slots, local, num_groups, num_nodes, algorithm = own
    try:
        weights = next(iter(manager._get_model().routed_experts_weights_of_layer.values()))  # noqa: SLF001
        groups = num_groups or 1
        hierarchical = algorithm.name.endswith("_hierarchical") and groups % num_nodes == 0
        nodes = num_nodes if (slots // local) % num_nodes == 0 else 1
        return ModelLoad(
            key="",
            model="",
            topology=Topology(slots, slots // local, nodes, groups if hierarchical else 1),
            bytes_per_expert=sum(each[0].numel() * each.element_size() for each in weights),
            counts=(counts.sum(0) if slot_counts is None else slot_counts).long().cpu().numpy(),
            num_experts=counts.shape[-1],
            per_slot=slot_counts is not None,
            phy2log_LR=in_force.cpu().numpy(),
            steps=max(1, int(manager._rebalance_num_iterations)),  # noqa: SLF001
            # "lp" solves for each batch how the replicas share it.
            split=Split.BEST if _dispatch() == "lp" else Split.EVEN,
        )
    except Exception:
        logger.exception("trimtab-sglang cannot tell the server about this model")
        return None
