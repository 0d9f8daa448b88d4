"""What the log tells of workers: each joins, leaves, is lost or refused in one line."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import Sequence
from typing import Any

import grpc
import pytest
import structlog

from tests.recording import Recording
from tests.rpc.endpoint import Endpoint, endpoint_of
from tests.rpc.peers import Peer, group, hello, joined, refused, until
from tests.servers import make_config
from trimtab_client import AsyncClient
from trimtab_server.app import App
from trimtab_server.engine.hellos import Hellos
from trimtab_server.rpc.admission import SESSIONS
from trimtab_tools.cli import main

Lines = Sequence[Any]


def told(logs: Lines) -> list[dict[str, Any]]:
    """The lines above debug that are about workers or their calls, without the deployment."""
    about = [
        dict(each)
        for each in logs
        if each["log_level"] != "debug" and ("worker" in each or each["event"] == "call ended")
    ]
    assert {each.pop("deployment") for each in about} <= {"d"}
    return about


async def until_left(endpoint: Endpoint) -> None:
    await until(lambda: endpoint.server.admission.running(SESSIONS) == 1)


LEFT = {"event": "worker left", "log_level": "info", "worker": "w0", "absent": 1}
LOST = {**LEFT, "event": "worker lost", "log_level": "warning"}


@pytest.mark.parametrize(
    ("way", "line"),
    [
        ("goodbye", {**LEFT, "reason": "enough"}),
        ("half-close", {**LOST, "reason": "the worker ended its stream without a goodbye"}),
        ("cancel", {**LOST, "reason": "the worker cancelled its stream, or the connection broke"}),
        ("nonsense", {**LOST, "reason": "message: None may not be sent here"}),
    ],
)
async def test_a_worker_that_leaves_or_is_lost_is_one_line_with_the_reason_and_the_absent(
    way, line
):
    async with endpoint_of() as endpoint:
        first, _ = await group(endpoint.channel)
        with structlog.testing.capture_logs() as logs:
            await first.leave(way)
            await until_left(endpoint)
    assert told(logs) == [line]


async def test_a_goodbye_cannot_write_lines_of_its_own():
    async with endpoint_of() as endpoint:
        first, _ = await group(endpoint.channel)
        with structlog.testing.capture_logs() as logs:
            await first.say(goodbye={"reason": "a\x1b[31m\nb" + "c" * 1000})
            await until_left(endpoint)
    (line,) = told(logs)
    assert line["reason"] == "a [31m b" + "c" * 192


async def test_a_worker_that_joins_is_one_line_with_the_absent():
    async with endpoint_of() as endpoint:
        with structlog.testing.capture_logs() as logs:
            first, second = await group(endpoint.channel)
        line = {"event": "worker joined", "log_level": "info", "absent": 0}
        assert told(logs) == [
            {**line, "worker": "w0", "absent": "unknown"},
            {**line, "worker": "w1"},
        ]
        for peer in (first, second):
            await peer.leave()
        await until(lambda: endpoint.server.admission.running(SESSIONS) == 0)
        with structlog.testing.capture_logs() as logs:
            await joined(endpoint.channel, hello(0, 2, stream=2))
        assert told(logs) == [{**line, "worker": "w0", "absent": 1}]


SILENT = "no message came from the worker for 0.5 s"


async def test_a_lease_that_is_over_and_a_newer_session_lose_a_worker():
    async with endpoint_of(lease_seconds=0.5, report_seconds=0.1) as endpoint:
        with structlog.testing.capture_logs() as logs:
            first = await joined(endpoint.channel, hello())
            await joined(endpoint.channel, hello(stream=2))
            await first.end()
            await until(lambda: endpoint.server.admission.running(SESSIONS) == 0)
    lost = {**LOST, "absent": 0}
    assert [each for each in told(logs) if each["event"] != "worker joined"] == [
        {**lost, "reason": "a newer session of this worker began"},
        {**lost, "reason": f"{SILENT} (setting lease_seconds)", "absent": 1},
    ]


async def test_workers_of_a_server_that_stops_are_not_lost():
    async with endpoint_of() as endpoint:
        await group(endpoint.channel)
        with structlog.testing.capture_logs() as logs:
            await endpoint.server.drain()
    lines = sorted(told(logs), key=lambda each: str(each["worker"]))
    assert [each["worker"] for each in lines] == ["w0", "w1"]
    for each in lines:
        assert (each["event"], each["reason"]) == ("worker left", "the server is shutting down")


async def test_a_worker_that_is_refused_again_and_again_is_counted_and_shown(capsys):
    reason = "group_id: 'g' serves already, but 'w7' in incarnation 1 on GPUs [0, 1] is not"
    async with (
        App(make_config(metrics_listen="127.0.0.1:0")) as app,
        grpc.aio.insecure_channel(app.address) as channel,
        AsyncClient(app.address) as client,
    ):
        await group(channel)
        with structlog.testing.capture_logs() as logs:
            for _ in range(12):
                assert (await refused(channel, hello=hello(worker="w7")))[1].startswith(reason)
            # Who sends this is not known.
            await refused(channel, report={"seq": 1})
            await refused(channel, hello=hello(deployment="other", gpus=[7]))
        status = (await client.get_deployment("d")).status
        command = ["deployments", "get", "d", "--server", app.address]
        shown = await asyncio.to_thread(main, command)
        page = await asyncio.to_thread(scrape, app.metrics_address)
    assert shown == 0
    assert status.sessions_refused == 12
    assert str(status.last_refusal).startswith(f"'w7': {reason}")
    assert f"sessions refused     12, the last to 'w7': {reason}" in capsys.readouterr().out
    assert 'trimtab_sessions_refused_total{deployment="d"} 12.0' in page
    assert 'trimtab_sessions_refused_total{deployment=""} 2.0' in page
    assert 'deployment="other"' not in page

    lines = [each for each in logs if each["log_level"] != "debug"]
    assert {(each["event"], each["log_level"]) for each in lines} == {("worker refused", "warning")}
    assert [(each["deployment"], each["worker"], each["times"]) for each in lines] == [
        *(("d", "w7", 1), ("d", "w7", 10), ("", "", 1), ("other", "w0", 1))
    ]
    assert str(lines[0]["reason"]).startswith(reason)


def scrape(address: str | None) -> str:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=60) as answer:
        return str(answer.read(), "utf-8")


async def test_the_refusals_of_only_so_many_workers_are_remembered():
    observer = Recording()
    hellos = Hellos({}, observer, max_refused=2)
    for worker in ("a", "a", "b", "a", "c", "b", "a"):
        hellos.refuse("d", worker, "why")
    last = ("session_refused", "d", "a", "why", 1)
    await observer.until(*last)
    assert [(each[1], each[3]) for each in observer.named("session_refused")] == [
        *(("a", 1), ("a", 2), ("b", 1), ("a", 3), ("c", 1), ("b", 1), ("a", 1))
    ]


async def test_a_call_that_is_refused_for_lack_of_room_is_one_line_and_counted():
    async with endpoint_of(max_sessions=1) as endpoint:
        peer = await joined(endpoint.channel, hello(0, 2))
        with structlog.testing.capture_logs() as logs:
            for _ in range(11):
                over = Peer(endpoint.channel)
                assert (await over.end())[0] == "RESOURCE_EXHAUSTED"
        await peer.leave()
    lines = [each for each in logs if each["log_level"] != "debug"]
    assert [(each["event"], each["times"]) for each in lines] == [
        *(("worker refused", 1), ("worker refused", 10))
    ]


async def test_refusals_without_names_are_counted_by_their_reason():
    observer = Recording()
    hellos = Hellos({}, observer)
    for reason in ("nonsense", "nonsense", "no room"):
        hellos.refuse("", "", reason)
    await observer.until("session_refused", "", "", "no room", 1)
    told = observer.named("session_refused")
    assert [each[2:] for each in told] == [("nonsense", 1), ("nonsense", 2), ("no room", 1)]
