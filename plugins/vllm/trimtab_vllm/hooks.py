"""The places where vLLM is changed: its policy, and two functions that tell what a call is about.

vLLM calls a policy with a load and a map, but says neither for which model nor whether it is only
the rehearsal of its memory profile. Who calls the policy knows both, so these functions note it
before they go on as they were.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from vllm.distributed.eplb import async_worker, policy
from vllm.distributed.eplb.eplb_state import EplbState
from vllm.distributed.eplb.policy.default import DefaultEplbPolicy

from trimtab_client.plugin import Leader, changed_signatures
from trimtab_vllm.policy import make_policy

_POLICY = "default"
"""The only name that vLLM's configuration allows; the policy under it is replaced."""

_KNOWN: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "EplbState.rearrange": (
        EplbState.rearrange,
        ("self", "is_profile", "rank_mapping", "use_last_expert_load"),
    ),
    "run_rebalance_experts": (
        async_worker.run_rebalance_experts,
        ("model_state", "eplb_state", "physical_to_logical_map_cpu", "stream"),
    ),
    "DefaultEplbPolicy.rebalance_experts": (
        DefaultEplbPolicy.rebalance_experts,
        (
            *("weight", "num_replicas", "num_groups", "num_nodes", "num_ranks"),
            "old_global_expert_indices",
        ),
    ),
}


class _Current(threading.local):
    """What the thread rebalances now.

    Attributes:
        state: the engine's `EplbState`; None outside a rebalance.
        models: its models that a policy has still to be asked for, in their order.
        is_traffic: whether the load is new and real, and no rehearsal.
    """

    state: Any = None
    models: Iterator[Any] = iter(())
    is_traffic: bool = False


_current = _Current()


def next_model() -> tuple[Any, Any] | None:
    """The engine's state, and its model that a policy is being asked for.

    None if that is unknown, or if the load is no new traffic. Each call is one question.
    """
    model = next(_current.models, None)
    if model is None or not _current.is_traffic:
        return None
    return _current.state, model


def unknown_parts() -> str:
    """Which parts of this vLLM are not as this plug-in knows them; empty if all are."""
    found = changed_signatures(_KNOWN)
    if policy.EPLB_POLICIES.get(_POLICY) is not DefaultEplbPolicy:
        found.append(f"the policy {_POLICY!r} is not DefaultEplbPolicy")
    return "; ".join(found)


def install(leader: Leader) -> None:
    """Replace vLLM's policy, and note what its calls are about."""
    policy.EPLB_POLICIES[_POLICY] = make_policy(leader, next_model)
    rearrange, run = EplbState.rearrange, async_worker.run_rebalance_experts

    @wraps(rearrange)
    def noted_rearrange(
        self: Any,
        is_profile: bool = False,
        rank_mapping: dict[int, int] | None = None,
        use_last_expert_load: bool = False,
    ) -> Any:
        is_traffic = not (is_profile or use_last_expert_load)
        with _noted(self, list(self.model_states.values()), is_traffic):
            return rearrange(self, is_profile, rank_mapping, use_last_expert_load)

    @wraps(run)
    def noted_run(model_state: Any, eplb_state: Any, *more: Any, **named: Any) -> Any:
        with _noted(eplb_state, [model_state], is_traffic=True):
            return run(model_state, eplb_state, *more, **named)

    EplbState.rearrange = noted_rearrange
    async_worker.run_rebalance_experts = noted_run


@contextmanager
def _noted(state: Any, models: list[Any], is_traffic: bool) -> Iterator[None]:
    """Note what this thread rebalances, until the end of the block."""
    _current.state, _current.models, _current.is_traffic = state, iter(models), is_traffic
    try:
        yield
    finally:
        _current.state, _current.models, _current.is_traffic = None, iter(()), False
