"""What operators do, with the client, over a real socket: from creation to deletion."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing, suppress
from pathlib import Path

import grpc
import numpy as np
import pytest

from tests.rpc.endpoint import endpoint_of, failure, violations
from tests.rpc.operating import (
    SAID,
    SPEC,
    V10,
    V11,
    V12,
    V13,
    client_of,
    in_force,
    once,
    run,
    status,
    switch,
    value,
)
from tests.rpc.peers import about, carry_out, group, hello, joined, refused, until, version
from tests.rpc.placements import AFTER, BEFORE, EXPERTS, GPUS, LAST, LAYERS, SLOTS
from tests.servers import make_config
from trimtab.v1alpha1 import deployment_service_pb2 as pb
from trimtab.v1alpha1 import switch_pb2
from trimtab.v1alpha1.deployment_service_pb2_grpc import DeploymentServiceStub
from trimtab_client import (
    AlreadyExistsError,
    AsyncClient,
    DeploymentSpec,
    FailedPreconditionError,
    InvalidArgumentError,
    Mode,
    MoveBudget,
    NotFoundError,
    Placement,
    Policy,
    Reason,
    RetryPolicy,
    ServedPlacement,
    Topology,
    Version,
)
from trimtab_protocol.wire.values import encode_placement
from trimtab_server.app import App
from trimtab_server.rpc.watch import placements

DEEPER = Placement.of(np.repeat(BEFORE.phy2log[:1], 3, axis=0), EXPERTS, GPUS)


async def test_workers_have_to_agree_with_a_created_deployment(endpoint, client):
    created = await client.create_deployment(SPEC, Policy(mode="shadow", max_moves_per_layer=7))
    assert created.spec == SPEC
    assert (created.policy.mode, created.policy.max_moves_per_layer) == (Mode.SHADOW, 7)
    assert None not in vars(created.policy).values()
    assert (created.status.in_force, created.status.phase) == (None, "idle")

    for changes, field in (
        ({"first_layer": 4}, "first_layer: 4 is not 3"),
        ({"model": "mixtral"}, "model: mixtral is not deepseek"),
        ({"serves": DEEPER}, "num_layers: 3 is not 2"),
    ):
        code, said = await refused(endpoint.channel, hello=hello(**{**SAID, **changes}))
        assert code == "FAILED_PRECONDITION"
        assert field in said

    await group(endpoint.channel, workers=1, **SAID)
    found = await client.get_deployment("d")
    assert found.spec == SPEC
    [worker] = found.status.workers
    assert (worker.worker, worker.gpus, worker.connected) == ("w0", (0, 1), True)
    assert (worker.last_step, worker.report_age_seconds) == (None, None)
    assert (found.status.in_force, found.status.digest) == (V10, BEFORE.digest)
    assert (found.status.workers_connected, found.status.workers_absent) == (1, 0)


async def test_creating_the_same_again_changes_nothing(client):
    created = await client.create_deployment(SPEC, Policy(mode="off"))
    for policy in (Policy(mode="off"), None):
        again = await client.create_deployment(SPEC, policy)
        assert (again.spec, again.policy) == (created.spec, created.policy)
        assert again.status.unused_seconds > created.status.unused_seconds, "nobody has used it"
    other = DeploymentSpec("d", LAYERS + 1, EXPERTS, Topology(SLOTS, GPUS), first_layer=3)
    with pytest.raises(AlreadyExistsError, match="num_layers"):
        await client.create_deployment(other)
    assert [each.spec for each in await client.deployments()] == [SPEC]


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"name": ""}, {"spec.name"}),
        ({"topology": Topology(7, 2)}, {"spec.topology.num_replicas"}),
        ({"num_layers": 0, "num_experts": 0}, {"spec.num_layers", "spec.num_experts"}),
        ({"name": "a\x1bb", "model": "c\nd"}, {"spec.name", "spec.model"}),
        ({"num_layers": 1 << 25}, {"spec.num_layers"}),
    ],
    ids=["name", "topology", "sizes", "unprintable", "huge"],
)
async def test_an_invalid_deployment_is_refused_and_the_field_named(client, changes, fields):
    spec = DeploymentSpec(**{**vars(SPEC), **changes})
    with pytest.raises(InvalidArgumentError) as caught:
        await client.create_deployment(spec)
    assert {violation.field for violation in caught.value.field_violations} == fields
    assert await client.deployments() == []


async def test_all_are_listed_by_name_without_their_workers(endpoint, client):
    await client.create_deployment(DeploymentSpec("z", 1, 2, Topology(2, 1)))
    await group(endpoint.channel, workers=2)
    await client.create_deployment(DeploymentSpec("a", 1, 2, Topology(2, 1)))

    first, second, third = await client.deployments()
    assert [each.spec.name for each in (first, second, third)] == ["a", "d", "z"]
    assert (second.status.workers, second.status.workers_connected) == ((), 2)
    assert second.status.in_force == V10
    assert len((await status(client)).workers) == 2


async def test_only_the_given_settings_of_a_policy_change(client):
    before = (await client.create_deployment(SPEC)).policy
    after = await client.update_policy("d", Policy(mode="shadow", least_gain=0.5))
    assert after == Policy(**{**vars(before), "mode": Mode.SHADOW, "least_gain": 0.5})
    assert (await client.get_deployment("d")).policy == after
    with pytest.raises(InvalidArgumentError) as caught:
        await client.update_policy("d", Policy(replan_gap=-0.5, moe_share=2.0))
    assert {violation.field for violation in caught.value.field_violations} == {
        *("policy.replan_gap", "policy.moe_share")
    }
    assert (await client.get_deployment("d")).policy == after


@pytest.mark.parametrize("field", ["start_above", "stop_below", "min_gain"])
async def test_a_former_setting_is_refused_by_name(endpoint, client, field):
    """As clients of earlier versions give it."""
    await client.create_deployment(SPEC)
    request = pb.UpdatePolicyRequest(deployment="d", policy=pb.Policy(**{field: 1.5}))
    with pytest.raises(grpc.aio.AioRpcError, match=f"policy.{field}: is no longer a setting"):
        await DeploymentServiceStub(endpoint.channel).UpdatePolicy(request)


async def test_without_a_placement_one_is_planned_from_the_counts(endpoint, client):
    (peer,) = await group(endpoint.channel, workers=1)
    # Experts 0 and 1 have two slots each, and 2 is the one that needs them.
    await peer.report(1, counts=[10, 10, 1000, 10])
    result = await client.trigger("d")
    assert (result.target.logcnt[:, 2] == 2).all()
    assert (await peer.hear("offer")).digest == result.target.digest


async def test_a_budget_limits_the_moves(endpoint, client):
    (peer,) = await group(endpoint.channel, workers=1)
    await peer.report(1, counts=[0, 10, 1000, 10])
    result = await client.trigger("d", budget=MoveBudget(max_moves=1))
    assert np.count_nonzero(result.target.phy2log != BEFORE.phy2log) == 1


async def test_an_invalid_trigger_is_refused_with_a_reason(endpoint, client):
    await group(endpoint.channel, workers=1)
    with pytest.raises(FailedPreconditionError, match="no worker has reported any load yet"):
        await client.trigger("d")
    with pytest.raises(InvalidArgumentError, match="budget: may not be set if placement is"):
        await client.trigger("d", placement=value(AFTER), budget=MoveBudget(max_moves=1))
    small = Placement.of([[0, 1, 2, 3]], EXPERTS, GPUS)
    with pytest.raises(InvalidArgumentError, match=r"shape: \[1, 4\] is not \[2, 6\]") as caught:
        await client.trigger("d", placement=small)
    assert caught.value.field_violations[0].field == "placement.phy2log.shape"
    forged = encode_placement(AFTER)
    forged.digest = bytes(32)
    request = pb.TriggerRequest(deployment="d", placement=forged)
    call = DeploymentServiceStub(endpoint.channel).Trigger(request)
    assert violations(await failure(call, "INVALID_ARGUMENT")).keys() == {"placement.digest"}
    await client.trigger("d", placement=value(AFTER))
    waits = r"the switch to 1\.1 is offered: waiting for w0"
    with pytest.raises(FailedPreconditionError, match=waits):
        await client.trigger("d", placement=value(AFTER))


async def test_a_pause_aborts_the_offer_and_forbids_offers_until_resume(endpoint, client):
    (peer,) = await group(endpoint.channel, workers=1)
    result = await client.trigger("d", placement=value(AFTER))
    assert (result.in_force, result.target) == (V10, value(AFTER))
    offer = await peer.hear("offer")
    assert offer.digest == AFTER.digest
    assert await client.pause("d", "maintenance") is None
    assert (await peer.hear("abort")).version == offer.version
    await peer.say(discarded=switch_pb2.Discarded(version=offer.version))
    for order in ({"placement": value(AFTER)}, {}):
        with pytest.raises(FailedPreconditionError, match="deployment is paused: maintenance"):
            await client.trigger("d", **order)

    assert await client.pause("d", "more of it") == "maintenance"
    assert await client.resume("d") == "more of it"
    assert await client.resume("d") is None
    deployment = endpoint.deployments.find("d")
    await until(lambda: deployment.rollout.blocked_reason() is None)
    await client.trigger("d", placement=value(AFTER))
    assert (await peer.hear("offer")).version == version(1, 2)


async def test_a_pause_leaves_a_committed_switch_alone(endpoint, client):
    (peer,) = await group(endpoint.channel, workers=1)
    await client.trigger("d", placement=value(AFTER))
    offer = await peer.prepare()
    await peer.hear("commit")
    await client.pause("d", "maintenance")
    await peer.say(applied=switch_pb2.Applied(step=1, **about(offer)))
    deployment = endpoint.deployments.find("d")
    await until(lambda: deployment.rollout.record.in_force == (1, 1))
    assert "abort" not in peer.seen


async def test_a_pause_by_the_server_can_be_resumed(endpoint, client):
    await group(endpoint.channel, workers=1)
    # Of a version that has never been, and by a placement that nobody has committed.
    await joined(endpoint.channel, hello(stream=2, in_force=version(1, 7), serves=AFTER))
    with pytest.raises(FailedPreconditionError, match=r"is paused: 'w0' serves with 1\.7"):
        await client.trigger("d", placement=value(AFTER))
    await joined(endpoint.channel, hello(stream=3, in_force=version(1, 0)))
    assert "serves with 1.7" in await client.resume("d")
    await client.trigger("d", placement=value(AFTER))


@pytest.mark.parametrize(
    ("reason", "description"),
    [
        ("", "'' is blank"),
        (" \n", "' \\n' is blank"),
        ("x" * 1001, "has 1001 characters, which is more than 1000"),
    ],
    ids=["empty", "blank", "long"],
)
async def test_a_pause_needs_a_reason(endpoint, client, reason, description):
    await group(endpoint.channel, workers=1)
    with pytest.raises(InvalidArgumentError) as caught:
        await client.pause("d", reason)
    [violation] = caught.value.field_violations
    assert (violation.field, violation.description) == ("reason", description)
    # Characters, not bytes; and it was not paused meanwhile.
    assert await client.pause("d", "\u00e9" * 1000) is None


async def test_a_pinned_placement_is_reached_and_kept_until_unpin(endpoint, client):
    peers = await group(endpoint.channel)
    result = await client.pin("d", value(AFTER))
    assert (result.in_force, result.target) == (V10, value(AFTER))
    await carry_out(peers)
    found = await in_force(client, V11)
    assert found.status.pinned_digest == AFTER.digest == found.status.digest

    with pytest.raises(FailedPreconditionError, match="pinned to"):
        await client.trigger("d", placement=value(BEFORE))
    again = await client.pin("d")
    assert (again.in_force, again.target) == (V11, value(AFTER))
    assert await client.unpin("d") == AFTER.digest
    assert await client.unpin("d") is None
    assert (await status(client)).pinned_digest is None
    assert await switch(client, peers, BEFORE) == V12


async def test_a_roll_back_is_a_new_generation_of_an_earlier_placement(endpoint, client):
    peers = await group(endpoint.channel)
    assert await switch(client, peers, AFTER) == V11
    assert await switch(client, peers, LAST) == V12
    assert (await status(client)).past == (V10, V11)

    for wanted, target, reached in (("1.1", AFTER, V13), (2, LAST, Version(1, 4))):
        result = await client.roll_back("d", wanted)
        assert result.target == value(target)
        await carry_out(peers)
        found = await in_force(client, reached)
        assert found.status.digest == found.status.pinned_digest == target.digest
    # Asked again, it is there already.
    assert (await client.roll_back("d", V12)).in_force == Version(1, 4)
    assert (await status(client)).phase == "idle"

    with pytest.raises(NotFoundError, match=r"no version 2\.1"):
        await client.roll_back("d", Version(2, 1))
    with pytest.raises(NotFoundError, match="no version 9"):
        await client.roll_back("d", 9)


async def test_placements_can_be_read_also_those_that_were(endpoint, client):
    await client.create_deployment(SPEC)
    with pytest.raises(FailedPreconditionError, match="has no placement yet"):
        await client.get_placement("d")
    peers = await group(endpoint.channel, **SAID)
    await switch(client, peers, AFTER)

    now = ServedPlacement(V11, value(AFTER), Topology(SLOTS, GPUS))
    was = ServedPlacement(V10, value(BEFORE), Topology(SLOTS, GPUS))
    assert await client.get_placement("d") == now
    for name in (V11, "1.1", "1", 1):
        assert await client.get_placement("d", name) == now
    for name in (V10, "1.0", 0):
        assert await client.get_placement("d", name) == was
    with pytest.raises(NotFoundError):
        await client.get_placement("d", 7)


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("placement.npz", []),
        ("placement.json", []),
        ("placement.json", ["--format", "sglang"]),
        ("placement.json", ["--format", "vllm-ascend"]),
        ("placement.yaml", []),
        ("placement.pt", []),
    ],
)
async def test_a_placement_is_exported_to_a_file_and_imported(
    endpoint, client, capsys, tmp_path, name, flags
):
    path = str(tmp_path / name)
    peers = await group(endpoint.channel)
    assert await run(endpoint.address, "deployments", "export", "d", path, *flags) == 0
    await switch(client, peers, AFTER)

    assert await run(endpoint.address, "deployments", "import", "d", path) == 0
    await carry_out(peers)
    assert (await in_force(client, V12)).status.digest == BEFORE.digest
    assert (await status(client)).pinned_digest is None
    out = capsys.readouterr().out
    assert f"d goes to {BEFORE.digest.hex()}, and serves by 1.1\n" in out

    assert await run(endpoint.address, "deployments", "roll-back", "d", "1.1") == 0
    await carry_out(peers)
    await in_force(client, V13)
    assert await run(endpoint.address, "deployments", "import", "d", path, "--pin") == 0
    await carry_out(peers)
    assert (await in_force(client, Version(1, 4))).status.pinned_digest == BEFORE.digest


async def test_the_commands_show_the_deployments(endpoint, client, capsys):
    create = ["create", "d", "--layers", "2", "--experts", "4", "--slots", "6", "--gpus", "2"]
    assert await run(endpoint.address, "deployments", *create, "--mode", "shadow") == 0
    await group(endpoint.channel)
    capsys.readouterr()

    assert await run(endpoint.address, "deployments") == 0
    [row] = [line.split() for line in capsys.readouterr().out.splitlines() if line[:2] == "d "]
    assert row[:5] == ["d", "shadow", "-", "2", "0"]
    assert await run(endpoint.address, "pause", "d", "maintenance") == 0
    assert await run(endpoint.address, "deployments", "update", "d", "--mode", "off") == 0
    capsys.readouterr()
    assert await run(endpoint.address, "deployments", "get", "d", "--json") == 0
    # The server's log goes to standard output here.
    lines = capsys.readouterr().out.splitlines(keepends=True)
    document = json.loads("".join(line for line in lines if line[0] in "{} "))
    assert document["policy"]["mode"] == "off"
    assert document["status"]["paused_reason"] == "maintenance"
    assert [worker["worker"] for worker in document["status"]["workers"]] == ["w0", "w1"]
    assert await run(endpoint.address, "watch", "d", "--count", "1") == 0
    assert f"d 1.0  {BEFORE.digest.hex()}" in capsys.readouterr().out
    assert await run(endpoint.address, "deployments", "get", "nobody") == 1
    assert capsys.readouterr().err == "trimtab: there is no deployment 'nobody'\n"


async def test_decisions_say_why():
    async with (
        endpoint_of(balance="shadow", report_seconds=0.01) as endpoint,
        client_of(endpoint.address) as client,
    ):
        [peer] = await group(endpoint.channel, workers=1)
        found = await once(lambda: client.decisions("d"), len)
        assert {each.reason for each in found} == {Reason.NO_LOAD}
        assert found[-1].time.utcoffset().total_seconds() == 0

        load = np.array([[1000, 10, 10, 10], [10, 10, 10, 1000]])
        await peer.report(1, counts=load, last_step=100)
        [decision] = await once(
            lambda: client.decisions("d", 1), lambda each: each[0].reason is not Reason.NO_LOAD
        )
        assert decision.reason in (Reason.IMPROVED, Reason.REPLANNED)
        assert (decision.mode, decision.step, decision.times) == (Mode.SHADOW, 100, 1)
        assert decision.imbalance_after < decision.imbalance_before
        assert decision.moves > 0
        now = await once(
            lambda: status(client), lambda each: each.balance.shadow != each.balance.predicted
        )
        assert now.balance.shadow.mean < now.balance.predicted.mean
        assert now.balance.shadow_moves == decision.moves
        assert (now.last_decision, now.step) == (decision, 100)
        assert now.decisions[decision.reason.value] == 1
        everything = await client.decisions("d")
        assert everything[-1:] == await client.decisions("d", 1) == [decision]
        assert len(everything) > 1


async def test_a_watch_begins_before_there_is_a_placement_and_follows_each(endpoint, client):
    await client.create_deployment(SPEC)
    async with aclosing(client.watch_placement("d")) as watch:
        first = asyncio.ensure_future(anext(watch))
        peers = await group(endpoint.channel, **SAID)
        assert await first == ServedPlacement(V10, value(BEFORE), Topology(SLOTS, GPUS))
        for placement in (AFTER, LAST):
            reached = await switch(client, peers, placement)
            served = await anext(watch)
            assert (served.version, served.placement) == (reached, value(placement))


async def test_a_slow_reader_never_misses_the_latest_placement(endpoint, client):
    peers = await group(endpoint.channel)
    async with asyncio.timeout(60), aclosing(client.watch_placement("d")) as watch:
        seen = [(await anext(watch)).version]
        for placement in (AFTER, LAST, BEFORE, AFTER):
            latest = await switch(client, peers, placement)
        while seen[-1] != latest:
            seen.append((await anext(watch)).version)
    assert seen == sorted(set(seen))


async def test_a_reader_that_stops_misses_placements_and_delays_nobody(endpoint, client):
    """At the server, where nothing between it and the reader keeps what is not read."""
    draining, peers = endpoint.server.admission.draining, await group(endpoint.channel)
    deployment = endpoint.deployments.find("d")
    async with (
        aclosing(placements(deployment, None, draining)) as slow,
        aclosing(placements(deployment, None, draining)) as quick,
    ):
        assert (await anext(slow)).version == (await anext(quick)).version
        read = []
        for placement in (AFTER, LAST, BEFORE):
            following = asyncio.ensure_future(anext(quick))
            await switch(client, peers, placement)
            read.append((await following).version.generation)
        assert read == [1, 2, 3]
        assert (await anext(slow)).version.generation == 3


async def test_watches_have_a_limit_of_their_own():
    async with (
        endpoint_of(max_concurrent_rpcs=1, max_watches=1) as endpoint,
        AsyncClient(endpoint.address, retry=RetryPolicy(max_attempts=1)) as client,
    ):
        await group(endpoint.channel)
        async with aclosing(client.watch_placement("d")) as watch:
            await anext(watch)
            assert (await client.get_deployment("d")).spec.name == "d"
            stub = DeploymentServiceStub(endpoint.channel)
            another = stub.WatchPlacement(pb.WatchPlacementRequest(deployment="d"))
            await failure(another.read(), "RESOURCE_EXHAUSTED")


async def test_a_watch_from_the_current_version_yields_only_later_ones(endpoint, client):
    peers = await group(endpoint.channel)
    async with aclosing(client.watch_placement("d", V10)) as watch:
        following = asyncio.ensure_future(anext(watch))
        assert await switch(client, peers, AFTER) == V11
        assert (await following).version == V11
    async with aclosing(client.watch_placement("d", V10)) as watch:
        assert (await anext(watch)).version == V11


async def test_a_cancelled_watch_leaves_nothing_behind(endpoint, client):
    await group(endpoint.channel)
    async with aclosing(client.watch_placement("d")) as watch:
        await anext(watch)
    method = "trimtab.v1alpha1.DeploymentService/WatchPlacement"
    await endpoint.observer.until("call_ended", method, "CANCELLED")


@pytest.mark.slow
async def test_a_watch_survives_the_server(tmp_path: Path):
    """What the reader has is not sent again; what has come meanwhile is."""
    store, listen = str(tmp_path / "trimtab.db"), f"unix:{tmp_path / 'socket'}"
    config = make_config(store=store, listen=listen, drain_seconds=0.1)
    seen: asyncio.Queue[ServedPlacement] = asyncio.Queue()

    async def read(client: AsyncClient) -> None:
        async for served in client.watch_placement("d"):
            seen.put_nowait(served)

    async with client_of(listen) as client:
        async with App(config) as app, grpc.aio.insecure_channel(app.address) as channel:
            peers = await group(channel)
            reading = asyncio.ensure_future(read(client))
            assert (await seen.get()).version == V10
            await switch(client, peers, AFTER)
            assert (await seen.get()).version == V11
        async with App(config) as app, grpc.aio.insecure_channel(app.address) as channel:
            # The same group, which goes on with what it has.
            back = {"in_force": version(1, 1), "serves": AFTER, "stream": 2}
            peers = [await joined(channel, hello(each, 2, **back)) for each in range(2)]
            for peer in peers:
                await peer.hear("welcome")
            # Offers wait for the workers' word of what they have.
            deployment = app._deployments.find("d")
            await until(lambda: deployment.rollout.blocked_reason() is None)
            assert seen.empty()
            reached = await switch(client, peers, LAST)
            latest = await seen.get()
            assert (latest.version, latest.placement) == (reached, value(LAST))
            assert seen.empty()
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading


async def test_only_a_deployment_without_sessions_can_be_deleted(endpoint, client):
    peers = await group(endpoint.channel)
    with pytest.raises(FailedPreconditionError, match="has 2 sessions: end its workers first"):
        await client.delete_deployment("d")
    watch = client.watch_placement("d")
    assert (await anext(watch)).version == V10
    for peer in peers:
        await peer.leave()
    deployment = endpoint.deployments.find("d")
    await until(lambda: not deployment.sessions)

    await client.delete_deployment("d")
    with pytest.raises(NotFoundError, match="'d' has been deleted"):
        await anext(watch)
    assert await client.deployments() == []


async def test_every_call_for_an_unknown_deployment_fails_with_not_found(client):
    calls = [
        client.get_deployment("d"),
        client.update_policy("d", Policy(mode="off")),
        client.delete_deployment("d"),
        client.trigger("d"),
        client.pause("d", "maintenance"),
        client.resume("d"),
        client.forget_load("d"),
        client.pin("d"),
        client.unpin("d"),
        client.roll_back("d", 0),
        client.get_placement("d"),
        anext(client.watch_placement("d")),
        client.decisions("d"),
    ]
    for call in calls:
        with pytest.raises(NotFoundError, match="there is no deployment 'd'"):
            await call


@pytest.mark.slow
async def test_policies_pins_and_pauses_survive_a_restart_of_the_server(tmp_path: Path):
    config = make_config(store=str(tmp_path / "trimtab.db"))
    async with App(config) as app, client_of(app.address) as client:
        created = await client.create_deployment(SPEC, Policy(mode="shadow", cooldown_steps=9))
        await client.pin("d", value(AFTER))
        await client.pause("d", "maintenance")
    async with App(config) as app, client_of(app.address) as client:
        found = await client.get_deployment("d")
        assert (found.spec, found.policy) == (created.spec, created.policy)
        assert found.status.pinned_digest == AFTER.digest
        assert await client.resume("d") == "maintenance"
    async with App(config) as app, client_of(app.address) as client:
        assert await client.resume("d") is None
        # The pin is where the first group is taken to.
        async with grpc.aio.insecure_channel(app.address) as channel:
            peers = await group(channel, **SAID)
            await carry_out(peers)
            assert (await in_force(client, V11)).status.digest == AFTER.digest
            for peer in peers:
                await peer.leave()
