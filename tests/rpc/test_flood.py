"""Calls that are refused, cancelled or ended at once, by the hundred, leave no error in the log."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections import Counter
from contextlib import suppress

import grpc
import pytest
import structlog

from tests.rpc.endpoint import endpoint_of, pack_request
from tests.rpc.peers import Peer, hello, pb, until
from trimtab.v1alpha1 import deployment_service_pb2 as operators_pb
from trimtab.v1alpha1.deployment_service_pb2_grpc import DeploymentServiceStub
from trimtab_server.rpc.admission import SESSIONS, SOLVER

_CALLS = 400
_WAYS = ("half-close", "goodbye", "cancel")


def errors_logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged as an error; asyncio logs errors that nobody has read once they are gone."""
    gc.collect()
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR]


async def session(channel: grpc.aio.Channel, number: int, way: str) -> str:
    """A worker that ends its session as soon as it has begun; returns the code of its end."""
    peer = Peer(channel)
    await peer.say(hello=hello(0, 2, deployment=f"d{number}"))
    if way == "cancel":
        peer.call.cancel()
        return (await peer.call.code()).name
    # The call may have been refused already.
    with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        if way == "half-close":
            await peer.call.done_writing()
        else:
            await peer.say(goodbye=pb.Goodbye(reason="enough"))
        while await peer.call.read() is not grpc.aio.EOF:
            pass
    return (await peer.call.code()).name


@pytest.mark.slow
@pytest.mark.parametrize("way", _WAYS)
async def test_sessions_that_end_while_they_begin_all_end_and_leave_no_error(way, caplog):
    # The last hundred are refused.
    async with endpoint_of(max_sessions=_CALLS - 100) as endpoint, asyncio.timeout(120):
        with structlog.testing.capture_logs():
            sessions = (session(endpoint.channel, number, way) for number in range(_CALLS))
            codes = Counter(await asyncio.gather(*sessions))
            await until(lambda: endpoint.server.admission.running(SESSIONS) == 0)
    assert errors_logged(caplog) == []
    assert codes.total() == _CALLS
    assert set(codes) <= {"CANCELLED"} if way == "cancel" else {"OK", "RESOURCE_EXHAUSTED"}


@pytest.mark.slow
async def test_other_calls_that_are_refused_and_cancelled_leave_no_error(caplog):
    async with endpoint_of(max_concurrent_rpcs=2, max_watches=2) as endpoint:
        stub = DeploymentServiceStub(endpoint.channel)
        unknown = operators_pb.WatchPlacementRequest(deployment="none")
        with structlog.testing.capture_logs():
            for number in range(_CALLS):
                calls = [
                    endpoint.stub.PlaceStream(),
                    endpoint.stub.Pack(pack_request()),
                    stub.WatchPlacement(unknown),
                ]
                # Some are cancelled before the server has heard of them, others while it answers.
                if number % 4 == 0:
                    await calls[1].initial_metadata()
                for call in calls:
                    call.cancel()
            with suppress(grpc.aio.AioRpcError):
                await endpoint.stub.Pack(pack_request())
            await until(lambda: endpoint.server.admission.running(SOLVER) == 0)
    assert errors_logged(caplog) == []
