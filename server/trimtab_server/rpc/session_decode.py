"""Converts the first message of a worker to a request to join."""

from __future__ import annotations

from trimtab.v1alpha1 import session_service_pb2 as pb
from trimtab_protocol.errors import gather
from trimtab_protocol.wire import requests
from trimtab_server.engine.deployment_spec import DeploymentSpec
from trimtab_server.engine.join_request import JoinRequest
from trimtab_server.rpc.decode import decode_topology_for_experts
from trimtab_server.rpc.fields import named_as

_HELLO_FIELDS = {
    name: f"hello.topology.{name}"
    for name in ("num_replicas", "num_gpus", "num_nodes", "num_groups")
}


def decode_hello(message: pb.Hello) -> JoinRequest:
    """Raises InvalidArgumentError with every field at fault."""
    with named_as(_HELLO_FIELDS):
        topology, (hello, setup) = gather(
            lambda: decode_topology_for_experts(message), lambda: requests.decode_hello(message)
        )
    spec = DeploymentSpec(
        topology,
        len(hello.placement.phy2log),
        setup.num_experts,
        setup.scope,
        setup.transfer,
        setup.bytes_per_expert,
        setup.model,
        setup.first_layer,
    )
    return JoinRequest(
        setup.deployment, spec, hello, setup.staging_slots, setup.max_layers_per_switch
    )
