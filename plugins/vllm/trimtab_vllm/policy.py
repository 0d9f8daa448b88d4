"""The policy: rank 0 asks Trimtab, and all ranks get its answer, or keep their map."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from vllm.distributed.eplb.policy.abstract import AbstractEplbPolicy
from vllm.distributed.eplb.policy.default import DefaultEplbPolicy
from vllm.distributed.parallel_state import get_eplb_group, get_pp_group

from trimtab_client import Topology
from trimtab_client.plugin import IntArray, Leader, ModelLoad, agreed

logger = logging.getLogger("vllm.trimtab")


def make_policy(
    leader: Leader, next_model: Callable[[], tuple[Any, Any] | None]
) -> type[AbstractEplbPolicy]:
    """A policy of vLLM's kind, which is a class without instances.

    Args:
        leader: asks the server; used on rank 0 of the group that vLLM balances.
        next_model: returns what a call is about: see `hooks.next_model`.
    """

    class TrimtabPolicy(AbstractEplbPolicy):  # type: ignore[misc]  # vLLM is not installed here
        """Keeps vLLM's map, or takes the server's. The same on all ranks, whatever fails."""

        @classmethod
        def rebalance_experts(
            cls,
            weight: torch.Tensor,
            num_replicas: int,
            num_groups: int,
            num_nodes: int,
            num_ranks: int,
            old_global_expert_indices: torch.Tensor | None = None,
        ) -> torch.Tensor:
            """See `AbstractEplbPolicy.rebalance_experts`."""
            old = old_global_expert_indices
            own = weight, num_replicas, num_groups, num_nodes, num_ranks, old
            asked = next_model()
            if asked is None or old is None or not _fits(old, num_replicas):
                # A rehearsal, or a group that grows or shrinks: the map cannot stay as it is.
                _warm(leader)
                return _vllms_own(*own)
            load = None
            if get_eplb_group().rank_in_group == 0:
                load = _load_of(*asked, own)
            if leader.observes:
                if load is not None:
                    leader.tell(load)
                return _vllms_own(*own)
            # From here on, all ranks do the same, and only the broadcast waits for another.
            target = None if load is None else leader.ask(load)
            return torch.from_numpy(agreed(target, old.numpy(), _broadcast))

    return TrimtabPolicy


def _vllms_own(*own: Any) -> torch.Tensor:
    answer: torch.Tensor = DefaultEplbPolicy.rebalance_experts(*own)
    return answer


def _fits(old: torch.Tensor, num_replicas: int) -> bool:
    """Whether the map in force may stay: it has all slots, and an expert in each."""
    return old.shape[1] == num_replicas and bool((old >= 0).all())


def _warm(leader: Leader) -> None:
    if get_eplb_group().rank_in_group == 0:
        leader.warm()


def _broadcast(message: IntArray) -> None:
    group = get_eplb_group()
    torch.distributed.broadcast(
        torch.from_numpy(message), src=group.ranks[0], group=group.cpu_group
    )


def _load_of(state: Any, model_state: Any, own: tuple[Any, ...]) -> ModelLoad | None:
    """What the server is told of a model; None if the engine keeps it elsewhere than is known."""
    weight, num_replicas, num_groups, num_nodes, num_ranks, old = own
    try:
        models = list(state.model_states.values())
        index = next(i for i, each in enumerate(models) if each is model_state)
        weights = model_state.model.expert_weights[0]
        # With fewer groups than nodes, or groups that do not divide, vLLM places without groups.
        groups = num_groups if num_groups > 1 and num_groups % num_nodes == 0 else 1
        return ModelLoad(
            key=_key(index),
            model=str(model_state.model_name),
            topology=Topology(num_replicas, num_ranks, num_nodes, groups),
            bytes_per_expert=sum(each[0].numel() * each.element_size() for each in weights),
            counts=weight.long().numpy(),
            num_experts=weight.shape[1],
            phy2log_LR=old.numpy(),
            steps=max(1, int(state.expert_rearrangement_step_interval)),
        )
    except Exception:
        logger.exception("trimtab-vllm cannot tell the server about this model")
        return None


def _key(index: int) -> str:
    """Tells the models of an engine apart: stages of a pipeline, and drafters of a target."""
    stage = get_pp_group()
    parts = [f"stage{stage.rank_in_group}"] if stage.world_size > 1 else []
    if index:
        parts.append(f"model{index}")
    return "-".join(parts)
