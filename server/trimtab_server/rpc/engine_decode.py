"""Converts what an engine that switches by itself says, and what it is told."""

from __future__ import annotations

from trimtab.v1alpha1 import engine_service_pb2 as pb
from trimtab_protocol.errors import gather
from trimtab_protocol.messages import Scope, SwitchedBy
from trimtab_protocol.wire import engine
from trimtab_protocol.wire.values import encode_placement
from trimtab_server.engine.deployment_spec import DeploymentSpec
from trimtab_server.engine.engine_side import EngineAnswer, EngineRequest
from trimtab_server.rpc.decode import decode_topology_for_experts
from trimtab_server.rpc.deployment_encode import encode_decision, encode_version
from trimtab_server.rpc.fields import PLACE_FIELDS, named_as


def decode_call(message: pb.RebalanceRequest) -> EngineRequest:
    """Raises InvalidArgumentError with every field at fault."""
    with named_as(PLACE_FIELDS):
        topology, call = gather(
            lambda: decode_topology_for_experts(message), lambda: engine.decode_call(message)
        )
    setup = call.setup
    spec = DeploymentSpec(
        topology,
        len(call.placement.phy2log),
        setup.num_experts,
        scope=Scope.GLOBAL,
        bytes_per_expert=setup.bytes_per_expert,
        model=setup.model,
        first_layer=setup.first_layer,
        switched_by=SwitchedBy.ENGINE,
    )
    return EngineRequest(call, spec)


def encode_answer(answer: EngineAnswer) -> pb.RebalanceResponse:
    """What the engine is told."""
    switch, logged = answer.switch, answer.logged
    return pb.RebalanceResponse(
        in_force=encode_version(answer.in_force),
        version=encode_version(switch.version) if switch else None,
        placement=encode_placement(switch.placement) if switch else None,
        moves=answer.moves,
        decision=encode_decision(logged) if logged else None,
        kept_because=answer.kept_because,
    )
