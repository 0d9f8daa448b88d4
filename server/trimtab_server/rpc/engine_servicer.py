"""The methods of EngineService: decode, call, encode."""

# ruff: noqa: N802 - gRPC names the methods

from __future__ import annotations

import asyncio
from typing import Any

from trimtab.v1alpha1 import engine_service_pb2 as pb
from trimtab.v1alpha1 import engine_service_pb2_grpc
from trimtab_protocol.wire.engine import decode_layers
from trimtab_protocol.wire.values import encode_version
from trimtab_server.domain.errors import malformed_as_invalid
from trimtab_server.engine.deployments import Deployments
from trimtab_server.rpc.engine_decode import decode_call, encode_answer


class EngineServicer(engine_service_pb2_grpc.EngineServiceServicer):
    """Raises the server's own errors, which the interceptor converts to statuses."""

    def __init__(self, deployments: Deployments) -> None:
        self._deployments = deployments

    async def Rebalance(self, request: pb.RebalanceRequest, context: Any) -> pb.RebalanceResponse:
        """Counts an engine's load, and says which placement to switch to."""
        # A request is large, and checking it may take long, so a thread does it.
        call = await asyncio.to_thread(decode_call, request)
        return encode_answer(await self._deployments.rebalance(call))

    async def ReportLayers(
        self, request: pb.ReportLayersRequest, context: Any
    ) -> pb.ReportLayersResponse:
        """Notes layers that an engine has switched."""
        with malformed_as_invalid():
            switched = decode_layers(request)
        deployment = self._deployments.find(switched.deployment)
        in_force = await deployment.engine.switched(switched)
        return pb.ReportLayersResponse(in_force=encode_version(in_force))
