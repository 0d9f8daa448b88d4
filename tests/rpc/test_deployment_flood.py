"""A client that creates deployments without end keeps nobody out for good, over real sockets."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
from contextlib import asynccontextmanager, closing, redirect_stdout
from io import StringIO

import grpc
import numpy as np
import pytest
import structlog

from tests.metrics.test_deployments import scraped
from tests.rpc.endpoint import endpoint_of
from tests.rpc.peers import group, hello, joined, refused, until
from tests.rpc.placements import BEFORE, EXPERTS, GPUS, LAYERS, SLOTS
from tests.servers import make_config
from trimtab_client import (
    AsyncClient,
    AsyncEngineSession,
    DeploymentSpec,
    EngineOptions,
    FailedPreconditionError,
    Placement,
    Topology,
)
from trimtab_server.app import App
from trimtab_tools.cli import main

FLOOD = [f"flood-{number}" for number in range(6)]


def names(served) -> list[str]:
    """All deployments of an endpoint or an app."""
    deployments = served._deployments if isinstance(served, App) else served.deployments
    return [each.name for each in deployments.all()]


async def flooded(channel: grpc.aio.Channel) -> list:
    """Deployments that are each a complete group of one worker, which stays."""
    return [(await group(channel, 1, deployment=name))[0] for name in FLOOD]


async def test_unused_deployments_expire_and_a_fleet_can_join():
    async with endpoint_of(max_deployments=len(FLOOD), expire_seconds=0.2) as endpoint:
        peers = await flooded(endpoint.channel)
        code, details = await refused(endpoint.channel, hello=hello(0, 2, deployment="fleet"))
        assert (code, "(setting max_deployments)" in details) == ("RESOURCE_EXHAUSTED", True)
        with structlog.testing.capture_logs() as logs:
            for peer in peers[1:]:
                await peer.leave()
            await until(lambda: names(endpoint) == FLOOD[:1])
            # What expires is in no list a moment before it is logged.
            await until(lambda: sum(each["event"] == "deleted" for each in logs) == len(FLOOD) - 1)
        told = {each["deployment"]: each["reason"] for each in logs if each["event"] == "deleted"}
        assert sorted(told) == FLOOD[1:]
        assert all("setting expire_seconds" in reason for reason in told.values())
        await group(endpoint.channel, deployment="fleet")
        # The session that was there all the time goes on.
        assert await peers[0].report(1) == 1


@asynccontextmanager
async def serving(folder, **settings):
    """A whole server with its store in the folder, its metrics, and a channel to it."""
    config = make_config(
        store=str(folder / "trimtab.db"),
        metrics_listen="127.0.0.1:0",
        report_seconds=0.05,
        max_deployments=len(FLOOD) + 1,
        max_deployment_series=2,
        **settings,
    )
    async with App(config) as app, grpc.aio.insecure_channel(app.address) as channel:
        yield app, channel


async def trimtab(app: App, *words: str) -> str:
    """What a command prints that succeeds."""
    out = StringIO()

    def run() -> int:
        with redirect_stdout(out):
            return main([*words, "--server", app.address])

    # The logs of a server in this process go to the same stream.
    with structlog.testing.capture_logs():
        assert await asyncio.to_thread(run) == 0, out.getvalue()
    return out.getvalue()


def labelled(text: str, label: str) -> set[str]:
    """All values that a label has in the metrics; empty ones are left out."""
    return set(re.findall(rf'[{{,]{label}="([^"]+)"', text))


async def unknown_calls(channel: grpc.aio.Channel) -> None:
    """Calls of methods and services that there are not."""
    for number in range(5):
        method = f"/trimtab.v1.SolverService/Method{number}", f"/service.{number}/Place"
        for each in method:
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await channel.unary_unary(each)(b"")
            assert failed.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.slow
async def test_operators_see_a_flood_and_delete_it_and_metrics_stay_small(tmp_path):
    async with serving(tmp_path) as (app, channel):
        (kept,) = await group(channel, 1, deployment="kept")
        for peer in await flooded(channel):
            await peer.leave()
        await until(lambda: all(not app._deployments.find(each).sessions for each in FLOOD))
        await unknown_calls(channel)
        text = await scraped(app)
        assert labelled(text, "deployment") == {"kept", FLOOD[0]}
        assert f"trimtab_deployments_without_metrics {len(FLOOD) - 1}.0" in text
        hellos = len(FLOOD) + 1
        assert f'trimtab_session_messages_total{{kind="hello"}} {hellos}.0' in text
        assert labelled(text, "kind") <= {"hello", "report", "goodbye", "prepared", "applied"}
        methods = labelled(text, "method")
        assert methods == {"trimtab.v1alpha1.SessionService/Session"}
        assert await kept.report(1) == 1
    # As if the server had been down for a while.
    with closing(sqlite3.connect(tmp_path / "trimtab.db")) as db, db:
        earlier = "json_set(body, '$.used_until', json_extract(body, '$.used_until') - 10000)"
        db.execute(f"UPDATE specs SET body = {earlier}")  # noqa: S608
    async with serving(tmp_path) as (app, channel):
        back = {"deployment": "kept", "stream": 2, "in_force": {"epoch": 1}}
        kept = await joined(channel, hello(**back))
        shown = await trimtab(app, "deployments", "get", FLOOD[0])
        assert re.search(r"unused for +2\.\d h", shown)
        shown = await trimtab(app, "deployments")
        assert len(re.findall(r" 2\.\d h ", shown)) == len(FLOOD)

        unused = ["deployments", "delete", "--unused-for", "3600"]
        shown = await trimtab(app, *unused, "--dry-run")
        assert shown.endswith("6 deployments unused for at least 3600 s would be deleted\n")
        assert names(app) == [*FLOOD, "kept"]
        documents = json.loads(await trimtab(app, *unused, "--json"))
        assert [each["deployment"] for each in documents if each["deleted"]] == FLOOD
        assert names(app) == ["kept"]
        shown = await trimtab(app, *unused)
        assert shown == "no deployments unused for at least 3600 s to delete\n"
        await group(channel, deployment="fleet")
        # What is left gets series with the next refresh, since there is room.
        async with asyncio.timeout(60):
            while labelled(text := await scraped(app), "deployment") != {"kept", "fleet"}:
                pass
        assert "trimtab_deployments_without_metrics 0.0" in text
        assert await kept.report(1) == 1


SPEC = DeploymentSpec("d", LAYERS, EXPERTS, Topology(SLOTS, GPUS))


async def ask(client: AsyncClient, deployment: str) -> None:
    """A call of an engine that switches by itself."""
    options = EngineOptions(deployment=deployment, topology=SPEC.topology, bytes_per_expert=1)
    placement = Placement.of(BEFORE.phy2log, EXPERTS, GPUS)
    session = AsyncEngineSession(client, options)
    await session.rebalance(np.ones((LAYERS, EXPERTS), np.int64), placement, 1)


async def test_the_server_says_who_may_create_deployments():
    only_operators = (
        "there is no deployment 'd', and only operators may create one (setting "
        "create_deployments: operators): run trimtab deployments create first"
    )
    async with (
        endpoint_of(create_deployments="operators") as endpoint,
        AsyncClient(endpoint.address) as client,
    ):
        refusal = await refused(endpoint.channel, hello=hello())
        assert refusal == ("FAILED_PRECONDITION", only_operators)
        with pytest.raises(FailedPreconditionError, match="create_deployments: operators"):
            await ask(client, "e")
        assert names(endpoint) == []
        await client.create_deployment(SPEC)
        await group(endpoint.channel)
    async with (
        endpoint_of(create_deployments="workers") as endpoint,
        AsyncClient(endpoint.address) as client,
    ):
        with pytest.raises(FailedPreconditionError, match="create_deployments: workers") as failed:
            await client.create_deployment(SPEC)
        assert "start its workers, or set it to anyone" in str(failed.value)
        await group(endpoint.channel)
        await ask(client, "e")
        assert (await client.create_deployment(SPEC)).spec == SPEC, "it exists: nothing is created"
        assert names(endpoint) == ["d", "e"]
