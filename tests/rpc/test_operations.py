"""What operators do is logged, and kept over restarts: what, by whom, before and after."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog

from tests.rpc.endpoint import PKI, TLS, Endpoint, endpoint_of
from tests.rpc.operating import SAID, SPEC, V11, client_of, in_force, once, run, switch, value
from tests.rpc.peers import carry_out, group, until
from tests.rpc.placements import AFTER, BEFORE, LAST
from tests.servers import make_config
from trimtab_client import AsyncClient, Operation, OperationKind, Policy, TlsOptions
from trimtab_server.app import App
from trimtab_server.store import failpoints


def short(placement: object) -> str:
    return str(placement.digest.hex()[:12])


def texts(operations: list[Operation]) -> list[tuple[str, str, str]]:
    return [(each.kind.value, each.before, each.after) for each in operations]


async def test_each_operation_says_what_it_changed(endpoint: Endpoint, client: AsyncClient):
    with structlog.testing.capture_logs() as logs:
        await client.create_deployment(SPEC)
        await client.create_deployment(SPEC)  # which changes nothing
        peers = await group(endpoint.channel, **SAID)
        await client.update_policy("d", Policy(mode="shadow", max_moves=7))
        await switch(client, peers, AFTER)
        await client.pause("d", "maintenance")
        await client.pause("d", "more of it")
        await client.resume("d")
        await client.forget_load("d")
        await client.pin("d", value(AFTER))
        await client.unpin("d")
        await client.roll_back("d", "1.0")
        await carry_out(peers)
        for peer in peers:
            await peer.leave()
        await client.delete_deployment("d")

    done = await client.operations("d")
    size = "2 layers of 4 experts in 6 slots on 2 GPUs"
    assert texts(done) == [
        ("create", "", f"{size}; mode off"),
        ("update_policy", "mode=off, max_moves=0", "mode=shadow, max_moves=7"),
        ("trigger", f"1.0 ({short(BEFORE)})", short(AFTER)),
        ("pause", "", "maintenance"),
        ("pause", "maintenance", "more of it"),
        ("resume", "more of it", ""),
        ("forget_load", "", ""),
        ("pin", "", short(AFTER)),
        ("unpin", short(AFTER), ""),
        ("roll_back", f"1.1 ({short(AFTER)})", f"1.0 ({short(BEFORE)})"),
        ("delete", f"{size}; mode shadow", ""),
    ]
    assert all(each.peer.startswith("ipv4:127.0.0.1:") for each in done)
    assert [each.time for each in done] == sorted(each.time for each in done)
    assert await client.operations("d", 2) == done[-2:]
    assert await client.operations("another") == []

    logged = [entry for entry in logs if entry["event"] == "operated"]
    assert [(e["operation"], e["before"], e["after"]) for e in logged] == texts(done)
    assert {(e["deployment"], e["peer"]) for e in logged} == {("d", done[0].peer)}


async def test_what_is_done_after_its_caller_gave_up_is_recorded(
    endpoint: Endpoint, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
):
    await group(endpoint.channel)
    store = endpoint.deployments.find("d")._core.store
    saving, saved, save = asyncio.Event(), asyncio.Event(), store.save_record

    async def save_slowly(record: Any) -> None:
        saving.set()
        await saved.wait()
        await save(record)

    monkeypatch.setattr(store, "save_record", save_slowly)
    pausing = asyncio.ensure_future(client.pause("d", "maintenance"))
    await saving.wait()
    pausing.cancel()
    await until(
        lambda: (
            "trimtab.v1alpha1.DeploymentService/Pause" in str(endpoint.observer.named("call_ended"))
        )
    )
    saved.set()
    done = await once(lambda: client.operations("d"), bool)
    assert texts(done) == [("pause", "", "maintenance")]
    assert done[0].peer.startswith("ipv4:127.0.0.1:")
    assert (await client.get_deployment("d")).status.paused_reason == "maintenance"


async def test_a_reason_cannot_draw_lines_of_its_own_or_reach_the_terminal(
    endpoint: Endpoint, client: AsyncClient, capsys: pytest.CaptureFixture[str]
):
    await client.create_deployment(SPEC)
    await client.pause("d", "maintenance\n2027-01-01 \x1b[31m")
    for command in (["history"], ["deployments", "get"], ["resume"]):
        assert await run(endpoint.address, *command, "d") == 0
        assert r"maintenance\n2027-01-01 \x1b[31m" in capsys.readouterr().out


async def test_operations_outlive_the_server_and_the_deployment(tmp_path: Path):
    config = make_config(store=str(tmp_path / "trimtab.db"))
    async with App(config) as app, client_of(app.address) as client:
        await client.create_deployment(SPEC)
        await client.pin("d", value(AFTER))
    async with App(config) as app, client_of(app.address) as client:
        assert [each.kind.value for each in await client.operations("d")] == ["create", "pin"]
        await client.delete_deployment("d")
    async with App(config) as app, client_of(app.address) as client:
        kinds = [each.kind.value for each in await client.operations("d")]
        assert kinds == ["create", "pin", "delete"]


async def test_only_the_newest_operations_are_kept_over_all_deployments():
    async with endpoint_of(max_operations=3) as endpoint, client_of(endpoint.address) as client:
        for name in ("d", "e"):
            await client.create_deployment(SPEC.__class__(**{**vars(SPEC), "name": name}))
            await client.pin(name, value(AFTER))
        assert [each.kind.value for each in await client.operations("d")] == ["pin"]
        assert [each.kind.value for each in await client.operations("e")] == ["create", "pin"]


async def test_an_operation_that_cannot_be_recorded_is_done_and_raises_an_alarm(
    endpoint: Endpoint, client: AsyncClient
):
    await client.create_deployment(SPEC)
    failpoints.configure("add_operation:before=error")
    try:
        with structlog.testing.capture_logs() as logs:
            await client.pause("d", "maintenance")
    finally:
        failpoints.configure("")
    assert (await client.get_deployment("d")).status.paused_reason == "maintenance"
    (alarm,) = (entry for entry in logs if entry["event"] == "alarm")
    assert "was done, but not recorded: failpoint add_operation:before" in alarm["reason"]


async def test_a_peer_with_a_certificate_is_named():
    ca, cert, key = (str(PKI / name) for name in ("ca.pem", "client.pem", "client.key"))
    tls = TlsOptions(ca=ca, cert=cert, key=key, server_name="trimtab.test")
    async with (
        endpoint_of(**TLS, tls_client_ca=ca) as endpoint,
        AsyncClient(endpoint.address, tls=tls) as client,
    ):
        await client.create_deployment(SPEC)
        (operation,) = await client.operations("d")
        assert operation.kind is OperationKind.CREATE
        assert operation.peer.endswith(" (trimtab test client)"), operation.peer


def operated(out: str) -> list[str]:
    """The lines of the table of operations. The server's log is in the output too."""
    _, _, table = out.partition("operation")
    return [line for line in table.splitlines() if " ipv4:" in line and "[" not in line]


async def test_the_command_shows_decisions_and_operations(endpoint, client, capsys):
    await client.create_deployment(SPEC)
    await client.pause("d", "maintenance")
    assert await run(endpoint.address, "history", "d") == 0
    created, paused = operated(capsys.readouterr().out)
    assert created.split()[2] == "create"
    assert paused.split()[2] == "pause"
    assert paused.endswith("maintenance")

    await client.delete_deployment("d")
    assert await run(endpoint.address, "history", "d", "--limit", "1") == 0
    (deleted,) = operated(capsys.readouterr().out)
    assert deleted.split()[2] == "delete"
    assert await run(endpoint.address, "history", "never") == 1
    assert "there is no deployment 'never'" in capsys.readouterr().err


async def test_a_rollback_can_go_back_to_what_was_in_force_before_a_rollout(endpoint, client):
    """Through the whole server: time, cause and imbalance are those of then."""
    peers = await group(endpoint.channel)
    for peer in peers:
        await peer.report(1)
    await endpoint.deployments.find("d").rebalance_once()
    await switch(client, peers, AFTER)
    async with grpc.aio.insecure_channel(endpoint.address):
        found = (await in_force(client, V11)).status
    (point,) = found.points
    assert (str(point.version), point.cause.value) == ("1.0", "started")
    assert point.since is not None
    assert point.until is not None
    assert point.since <= point.until
    assert point.imbalance is not None
    assert point.imbalance >= 1
    assert found.past == (point.version,)
    await client.roll_back("d", "1.0")
    await carry_out(peers)
    after = (await in_force(client, V11._replace(generation=2))).status
    assert [(str(each.version), each.cause.value) for each in after.points] == [
        ("1.1", "triggered")
    ]


async def test_a_new_group_that_goes_to_its_pin_was_not_rolled_back(endpoint, client):
    peers = await group(endpoint.channel)
    await switch(client, peers, AFTER)
    await client.pin("d")
    for peer in peers:
        await peer.leave()
    again = await group(endpoint.channel, group_id="g2", stream=2)
    # It began with another placement, and goes to the pinned one, which was in force before.
    await endpoint.deployments.find("d").rebalance_once()
    await carry_out(again)
    await in_force(client, V11._replace(epoch=2, generation=2))
    await client.unpin("d")
    await switch(client, again, LAST)
    points = (await client.get_deployment("d")).status.points
    assert {str(each.version): each.cause.value for each in points}["2.2"] == "pinned"
