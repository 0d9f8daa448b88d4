"""Watching placements: both clients against a scripted server that fails on demand."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.client.deployed import SECOND, Worker, accepted
from tests.client.harness import BlockingClient, event_loop
from tests.client.operated import OTHER, PLACEMENT, SPEC, placement_message, served_message
from tests.client.service import HOLD, Failure, RunningService
from tests.servers import server_process
from trimtab_client import (
    AccessDeniedError,
    AsyncClient,
    CallCancelledError,
    Client,
    ClientClosedError,
    DeadlineExceededError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    ProtocolError,
    ResourceExhaustedError,
    RetryPolicy,
    Topology,
    TrimtabError,
    UnavailableError,
    UnimplementedError,
    Version,
)
from trimtab_client.retry import Deadline
from trimtab_client.watching import Watch

V1, V2, V3 = Version(1, 0), Version(1, 2), Version(2, 0)
GONE = Failure(grpc.StatusCode.NOT_FOUND, "it has been deleted")
AWAY = Failure(grpc.StatusCode.UNAVAILABLE)
STOPPED = Failure(grpc.StatusCode.CANCELLED)
ABORTED = Failure(grpc.StatusCode.ABORTED)
BUSY = Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, retry_after=0.001)


def known(service: RunningService) -> list[str | None]:
    """What the readers said that they have, watch by watch."""
    return [
        f"{request.known.epoch}.{request.known.generation}" if request.HasField("known") else None
        for request in service.deployments.requests
    ]


def versions(watch: Iterator[Any], most: int | None = None) -> list[Version]:
    return [served.version for served in islice(watch, most)]


def test_placements_come_as_they_come_into_force(service: RunningService, client: Any) -> None:
    service.deployments.watches.append([served_message(V1), served_message(V2, OTHER), HOLD])

    with closing(client.watch_placement("d")) as watch:
        first, second = islice(watch, 2)
    assert (first.version, first.placement, first.topology) == (V1, PLACEMENT, Topology(6, 2))
    assert (second.version, second.placement) == (V2, OTHER)
    assert [request.deployment for request in service.deployments.requests] == ["d"]
    assert known(service) == [None]


@pytest.mark.parametrize(
    "end",
    [[AWAY], [STOPPED], [ABORTED], [BUSY], []],
    ids=["away", "stopped", "aborted", "busy", "just ended"],
)
def test_the_watch_continues_from_its_last_version_after_a_temporary_error(
    service: RunningService, client: Any, end: list[Failure]
) -> None:
    first, second, third = map(served_message, (V1, V2, V3))
    service.deployments.watches.extend([end, [first, *end], end, [second, third, *end], [GONE]])
    watch = client.watch_placement("d")
    assert versions(watch, 3) == [V1, V2, V3]
    with pytest.raises(NotFoundError, match="it has been deleted"):
        next(watch)
    assert known(service) == [None, None, "1.0", "1.0", "2.0"]


def test_no_version_comes_twice_in_a_row(service: RunningService, client: Any) -> None:
    """Whatever the server says: an old one may not look at what the reader has."""
    service.deployments.watches.extend(
        [
            [served_message(V1), served_message(V1), AWAY],
            [served_message(V1), served_message(V2), AWAY],
            [served_message(V2), served_message(V1), HOLD],
        ]
    )
    with closing(client.watch_placement("d")) as watch:
        assert versions(watch, 3) == [V1, V2, V1]


def test_the_known_version_is_not_yielded(service: RunningService, client: Any) -> None:
    service.deployments.watches.append([served_message(V2), served_message(V3), HOLD])

    with closing(client.watch_placement("d", V2)) as watch:
        assert versions(watch, 1) == [V3]
    assert known(service) == ["1.2"]


@pytest.mark.parametrize("attempts", [1, 4])
def test_the_watch_never_gives_up(
    service: RunningService, connect: Callable[..., Any], attempts: int
) -> None:
    retry = RetryPolicy(max_attempts=attempts, initial_backoff=0.001, max_backoff=0.001)
    client = connect(service.target, retry=retry)
    service.deployments.watches.extend([[AWAY]] * 50)
    service.deployments.watches.append([served_message(V1), HOLD])

    with closing(client.watch_placement("d")) as watch:
        assert versions(watch, 1) == [V1]
    assert len(service.deployments.requests) == 51


def test_the_watch_backs_off_until_the_server_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.random", lambda: 1.0)
    retry = RetryPolicy(max_attempts=1, initial_backoff=1.0, max_backoff=4.0, multiplier=2.0)
    watch = Watch("d", None, retry, Deadline(math.inf))

    assert [watch.delay_after(None) for _ in range(4)] == [1.0, 2.0, 4.0, 4.0]
    assert watch.news(served_message(V1)) is not None
    assert [watch.delay_after(None) for _ in range(2)] == [1.0, 2.0]
    assert watch.news(served_message(V1)) is None
    assert watch.delay_after(None) == 1.0


@pytest.mark.parametrize(
    ("end", "kind"),
    [
        (GONE, NotFoundError),
        (Failure(grpc.StatusCode.INVALID_ARGUMENT), InvalidArgumentError),
        (Failure(grpc.StatusCode.PERMISSION_DENIED), AccessDeniedError),
        (Failure(grpc.StatusCode.UNIMPLEMENTED), UnimplementedError),
        (Failure(grpc.StatusCode.INTERNAL), InternalError),
        (Failure(grpc.StatusCode.RESOURCE_EXHAUSTED), ResourceExhaustedError),
    ],
    ids=lambda value: value.code.name if isinstance(value, Failure) else "",
)
def test_a_lasting_error_ends_the_watch(
    service: RunningService, client: Any, end: Failure, kind: type[TrimtabError]
) -> None:
    service.deployments.watches.append([end])

    with pytest.raises(kind):
        next(client.watch_placement("d"))
    assert len(service.deployments.requests) == 1


def test_an_invalid_placement_ends_the_watch(service: RunningService, client: Any) -> None:
    wrong = served_message(V1, placement=placement_message(OTHER, digest=PLACEMENT.digest))
    service.deployments.watches.append([wrong, HOLD])

    with pytest.raises(ProtocolError, match="Do not use this placement"):
        next(client.watch_placement("d"))
    assert service.deployments.watch_over.acquire(timeout=20)


@pytest.mark.parametrize("closed", [True, False], ids=["closed", "left"])
def test_ending_the_loop_cancels_the_call(
    service: RunningService, client: Any, *, closed: bool
) -> None:
    service.deployments.watches.append([served_message(V1), HOLD])
    watch = client.watch_placement("d")
    assert next(watch).version == V1

    if closed:
        watch.close()
    del watch
    assert service.deployments.watch_over.acquire(timeout=20)


def test_closing_the_client_ends_a_watch_that_waits(service: RunningService, client: Any) -> None:
    service.deployments.watches.append([HOLD])
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, client.watch_placement("d", timeout=20))
        assert service.deployments.held.acquire(timeout=20)
        client.close()
        with pytest.raises(CallCancelledError):
            waiting.result()
    with pytest.raises(ClientClosedError):
        client.watch_placement("d")


async def test_cancelling_a_task_cancels_the_call_that_it_waits_for(
    service: RunningService,
) -> None:
    service.deployments.watches.append([HOLD])
    async with AsyncClient(service.target) as client:
        watch = client.watch_placement("d")
        waiting = asyncio.ensure_future(anext(watch))
        await asyncio.to_thread(service.deployments.held.acquire)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await asyncio.to_thread(service.deployments.watch_over.acquire, timeout=20)


def test_the_timeout_limits_the_whole_watch(service: RunningService, client: Any) -> None:
    service.deployments.watches.append([served_message(V1), HOLD])
    watch = client.watch_placement("d", timeout=0.5)

    assert versions(watch, 1) == [V1]
    with pytest.raises(DeadlineExceededError):
        next(watch)


def test_without_a_server_it_waits_until_its_timeout(connect: Callable[..., Any]) -> None:
    # If the machine is busy, the timeout may end a call before that call has failed.
    with pytest.raises((UnavailableError, DeadlineExceededError)):
        next(connect("unix:/nowhere").watch_placement("d", timeout=0.3))


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((7,), {}, "deployment: 7 is not a string"),
        (("d", Version(-1, 0)), {}, "known: -1 is not in"),
        (("d",), {"timeout": 0}, "timeout: 0 is not above 0"),
    ],
    ids=["deployment", "known", "timeout"],
)
def test_invalid_arguments_of_a_watch_are_refused_at_once(
    client: Any, arguments: tuple[Any, ...], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        client.watch_placement(*arguments, **options)


def test_the_call_begins_with_the_first_placement_asked_for(
    service: RunningService, client: Any
) -> None:
    watch = client.watch_placement("d")
    assert service.deployments.requests == []
    service.deployments.watches.append([served_message(V1), HOLD])
    assert next(watch).version == V1
    watch.close()


@pytest.mark.concurrent
def test_watches_pauses_and_their_ends_outlive_a_killed_server(tmp_path: Path) -> None:
    address = f"unix:{tmp_path / 'socket'}"
    flags = ["--store", str(tmp_path / "trimtab.db"), "--report-seconds", "0.01"]
    flags += ["--listen", address]
    with event_loop() as wait, closing(Client(address)) as client, ExitStack() as stack:
        clients = client, stack.enter_context(closing(BlockingClient(wait, address)))
        with server_process(*flags) as server:
            worker = Worker(server, "d")
            watches = [stack.enter_context(closing(each.watch_placement("d"))) for each in clients]
            assert [versions(watch, 1) for watch in watches] == [[Version(1, 0)]] * 2
            client.create_deployment(replace(SPEC, name="resumed"))
            for name in ("d", "resumed"):
                assert client.pause(name, "maintenance") is None
            assert client.resume("resumed") == "maintenance"
            server.process.kill()
            server.process.wait()
        with server_process(*flags):
            client.wait_ready(60)
            assert client.resume("d") == "maintenance"
            assert client.resume("resumed") is None
            accepted(client, "d", placement=SECOND)
            worker.flip()
            for served in map(next, watches):
                assert (served.version, served.placement) == (Version(1, 1), SECOND)
            worker.session.close(timeout=0.1)
