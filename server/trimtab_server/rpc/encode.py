"""Converts results to messages."""

from __future__ import annotations

from trimtab.v1 import placement_pb2, solver_service_pb2
from trimtab_protocol.wire.tensors import encode_tensor
from trimtab_protocol.wire.values import encode_placement
from trimtab_server.domain.balance import Evaluation
from trimtab_server.domain.moves import Moves
from trimtab_server.engine.plan_result import Placed
from trimtab_server.solver.backends.backend import Packing


def encode_packed(packed: Packing) -> solver_service_pb2.PackResponse:
    """The answer of Pack."""
    return solver_service_pb2.PackResponse(
        pack_index=encode_tensor(packed.pack_index, "i4"),
        rank_in_pack=encode_tensor(packed.rank_in_pack, "i4"),
    )


def encode_placed(placed: Placed) -> solver_service_pb2.PlaceResponse:
    """The answer of Place, and of each load of PlaceStream."""
    return solver_service_pb2.PlaceResponse(
        placement=encode_placement(placed.placement),
        moves=None if placed.moves is None else _moves(placed.moves),
        before=None if placed.before is None else _balance(placed.before),
        after=_balance(placed.after),
    )


def _moves(moves: Moves) -> placement_pb2.Moves:
    if len(moves) == 0:
        return placement_pb2.Moves()
    return placement_pb2.Moves(
        layer_slot_expert=encode_tensor(moves.layer_slot_expert, "i4"),
        source_gpus=encode_tensor(moves.source_gpus, "i4"),
    )


def _balance(balance: Evaluation) -> placement_pb2.Balance:
    return placement_pb2.Balance(
        gpu_load=encode_tensor(balance.gpu_load, "f8"),
        imbalance=encode_tensor(balance.imbalance, "f8"),
        bound=encode_tensor(balance.bound, "f8"),
    )
