"""Who a worker is, what it has, and what it can do: what its Hello says."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from enum import Enum
from itertools import pairwise
from typing import TypeVar

from trimtab_client.checks import integer, text
from trimtab_client.exceptions import invalid
from trimtab_client.options import Topology
from trimtab_client.placement import Placement
from trimtab_protocol.messages import Scope, TopologySizes, Transfer, WorkerSetup

_UINT32_MAX = 2**32 - 1
_UINT64_MAX = 2**64 - 1

_Choice = TypeVar("_Choice", bound=Enum)


@dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    """Who a worker is, what it has, and what it can do.

    Attributes:
        deployment: the model instance. Created by the first worker; all have to agree.
        worker: the worker's name, the same in each incarnation.
        topology: the deployment's.
        placement: what the worker serves by as it starts.
        scope: what it records: SOURCE, LOCAL or GLOBAL, or these names in lower case.
        bytes_per_expert: size of the weights of one expert in one layer.
        gpus: the GPUs that it owns, ascending. Empty: all.
        group_id: name of the expert-parallel group, which the engine makes when the group
            forms and tells all ranks. Only a worker that owns all GPUs may leave it empty:
            it gets a new one.
        incarnation: rises with each start of the process. 0: nanoseconds since 1970.
        transfer: how weights come into staging: PULL or COLLECTIVE, or these names in
            lower case.
        staging_slots: expert weights that the staging of each GPU has room for.
        max_layers_per_switch: most layers that one switch may touch; 0: no limit.
        model: which model it serves, for people; empty: not said.
        first_layer: of the model's MoE layers, the first that the deployment has: pipeline
            stages are a deployment each.

    Raises:
        InvalidArgumentError: a value is out of its range, or does not fit the others.
    """

    deployment: str
    worker: str
    topology: Topology
    placement: Placement
    scope: Scope
    bytes_per_expert: int
    gpus: tuple[int, ...] = ()
    group_id: str = field(default="")
    incarnation: int = 0
    transfer: Transfer = Transfer.PULL
    staging_slots: int = 1
    max_layers_per_switch: int = 0
    model: str = ""
    first_layer: int = 0

    def __post_init__(self) -> None:
        _text(self.deployment, "deployment")
        _text(self.worker, "worker")
        self._set("scope", _choice(self.scope, Scope, "scope"))
        self._set("transfer", _choice(self.transfer, Transfer, "transfer"))
        integer(self.bytes_per_expert, "bytes_per_expert", 1, _UINT64_MAX)
        integer(self.staging_slots, "staging_slots", 1, _UINT32_MAX)
        integer(self.max_layers_per_switch, "max_layers_per_switch", 0, _UINT32_MAX)
        text(self.model, "model")
        integer(self.first_layer, "first_layer", 0, _UINT32_MAX)
        integer(self.incarnation, "incarnation", 0, _UINT64_MAX)
        check_placement(self.placement, self.topology)
        self._set("gpus", check_gpus(self.gpus, self.topology))
        self._set("group_id", self._checked_group())
        self._set("incarnation", self.incarnation or time.time_ns())

    @property
    def num_experts(self) -> int:
        """E: logical experts of a layer."""
        return self.placement.num_experts

    @property
    def owns_all(self) -> bool:
        """Whether the worker is the only one of its group."""
        return len(self.gpus) == self.topology.num_gpus

    def setup(self) -> WorkerSetup:
        """What the first message of each session says, however far the worker has come."""
        return WorkerSetup(
            deployment=self.deployment,
            topology=TopologySizes(**vars(self.topology)),
            num_experts=self.num_experts,
            scope=self.scope,
            transfer=self.transfer,
            staging_slots=self.staging_slots,
            max_layers_per_switch=self.max_layers_per_switch,
            bytes_per_expert=self.bytes_per_expert,
            model=self.model,
            first_layer=self.first_layer,
        )

    def _checked_group(self) -> str:
        if self.group_id == "" and self.owns_all:
            return uuid.uuid4().hex
        return _text(self.group_id, "group_id")

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)


def check_gpus(gpus: tuple[int, ...], topology: Topology) -> tuple[int, ...]:
    """The GPUs that a worker owns; all where it names none.

    Raises:
        InvalidArgumentError: one is not in the topology, or they do not ascend.
    """
    highest = topology.num_gpus - 1
    owned = tuple(integer(gpu, f"gpus[{i}]", 0, highest) for i, gpu in enumerate(gpus))
    if any(left >= right for left, right in pairwise(owned)):
        raise invalid("gpus", f"{list(owned)} do not ascend")
    return owned or tuple(range(topology.num_gpus))


def check_placement(placement: Placement, topology: Topology) -> None:
    """Check that a placement is one of this topology.

    Raises:
        InvalidArgumentError: it has other slots or other GPUs.
    """
    if not isinstance(placement, Placement):
        raise invalid("placement", f"{type(placement).__name__} is not a Placement: Placement.of")
    seen = placement.phy2log.shape[1], placement.num_gpus
    wanted = topology.num_replicas, topology.num_gpus
    if seen != wanted:
        raise invalid("placement", f"(slots, GPUs) {seen} are not the topology's {wanted}")


def _text(value: object, field_name: str) -> str:
    if not isinstance(value, str) or not value:
        raise invalid(field_name, f"{value!r} is not a name: give a string that is not empty")
    return value


def _choice(value: object, kind: type[_Choice], field_name: str) -> _Choice:
    try:
        return kind(value)
    except ValueError as error:
        names = [choice.value for choice in kind]
        raise invalid(field_name, f"{value!r} is not one of {names}") from error
