"""The options of a worker, which its Hello sends to the server."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from itertools import pairwise

from trimtab_client.checks import integer, named, one_of, text
from trimtab_client.exceptions import invalid
from trimtab_client.options import Topology
from trimtab_client.placement import Placement
from trimtab_protocol.messages import Scope as Scope
from trimtab_protocol.messages import Transfer as Transfer
from trimtab_protocol.messages import WorkerSetup

_UINT32_MAX = 2**32 - 1
_UINT64_MAX = 2**64 - 1


@dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    """The identity, the placement and the limits of a worker.

    Attributes:
        deployment: name of the model instance. Its first worker creates the deployment, and all
            workers have to agree on what it is.
        worker: the worker's name, the same in each incarnation.
        topology: the topology of the deployment.
        placement: the worker's placement when it starts.
        scope: which tokens it records: SOURCE, LOCAL or GLOBAL, or these names in lower case.
        bytes_per_expert: size of the weights of one expert in one layer.
        gpus: the GPUs that it owns, ascending. Empty for all.
        group_id: name of the expert-parallel group, which the engine makes when the group forms and
            gives to all ranks. Only a worker that owns all GPUs may leave it empty: it gets a new
            one.
        incarnation: rises with each start of the process. 0 for the nanoseconds since 1970.
        transfer: how weights get into staging: PULL or COLLECTIVE, or these names in lower case.
        staging_slots: number of expert weights that the staging of each GPU has room for.
        max_layers_per_switch: maximum number of layers that one switch may change; 0 for no limit.
        model: name of the model, for people; may be empty.
        first_layer: the first of the model's MoE layers that belongs to the deployment: each
            pipeline stage is a deployment of its own.

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
    group_id: str = ""
    incarnation: int = 0
    transfer: Transfer = Transfer.PULL
    staging_slots: int = 1
    max_layers_per_switch: int = 0
    model: str = ""
    first_layer: int = 0

    def __post_init__(self) -> None:
        named(self.deployment, "deployment")
        named(self.worker, "worker")
        for name, kind in (("scope", Scope), ("transfer", Transfer)):
            self._set(name, one_of(kind, getattr(self, name), name))
        integer(self.bytes_per_expert, "bytes_per_expert", 1, _UINT64_MAX)
        integer(self.staging_slots, "staging_slots", 1, _UINT32_MAX)
        integer(self.max_layers_per_switch, "max_layers_per_switch", 0, _UINT32_MAX)
        text(self.model, "model")
        integer(self.first_layer, "first_layer", 0, _UINT32_MAX)
        integer(self.incarnation, "incarnation", 0, _UINT64_MAX)
        check_placement(self.placement, self.topology)
        self._set("gpus", check_gpus(self.gpus, self.topology))
        if self.group_id == "" and self.owns_all:
            self._set("group_id", uuid.uuid4().hex)
        named(self.group_id, "group_id")
        self._set("incarnation", self.incarnation or time.time_ns())

    @property
    def num_experts(self) -> int:
        """E: logical experts of a layer."""
        return self.placement.num_experts

    @property
    def owns_all(self) -> bool:
        """Whether the worker is the only one of its group."""
        return len(self.gpus) == self.topology.num_gpus

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)


def worker_setup(options: WorkerOptions) -> WorkerSetup:
    """The part of the first message of each session that stays the same."""
    return WorkerSetup(**{name: getattr(options, name) for name in WorkerSetup._fields})


def check_gpus(gpus: tuple[int, ...], topology: Topology) -> tuple[int, ...]:
    """The GPUs that a worker owns, in the topology and ascending: all if `gpus` is empty."""
    last = topology.num_gpus - 1
    owned = tuple(integer(gpu, f"gpus[{i}]", 0, last) for i, gpu in enumerate(gpus))
    if any(left >= right for left, right in pairwise(owned)):
        raise invalid("gpus", f"{list(owned)} do not ascend")
    return owned or tuple(range(topology.num_gpus))


def check_placement(placement: Placement, topology: Topology) -> None:
    """Check that a placement has the slots and GPUs of the topology."""
    if not isinstance(placement, Placement):
        raise invalid("placement", f"{type(placement).__name__} is not a Placement: Placement.of")
    seen = placement.phy2log.shape[1], placement.num_gpus
    wanted = topology.num_replicas, topology.num_gpus
    if seen != wanted:
        raise invalid("placement", f"(slots, GPUs) {seen} are not the topology's {wanted}")
