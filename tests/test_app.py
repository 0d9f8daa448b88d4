"""The whole server: ready, metrics while busy, and its two-stage end, with real signals."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import urllib.request
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import numpy as np
import pytest
import structlog
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from tests.recording import Recording
from tests.rpc.endpoint import TLS, pack_request, place_request
from tests.servers import ServerProcess, busy, make_config, next_event, server_process
from trimtab.v1 import solver_service_pb2 as pb
from trimtab.v1.solver_service_pb2_grpc import SolverServiceStub
from trimtab_protocol.wire.tensors import encode_tensor
from trimtab_server.app import App, serve
from trimtab_server.domain.errors import InvalidArgumentError
from trimtab_server.rpc.admission import SOLVER


def scrape(address: str | None) -> str:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        return str(answer.read(), "utf-8")


def heard(app: App) -> Recording:
    """Hears from now on what the queue of `app` reports."""
    recording = Recording()
    app.queue._observer = recording
    return recording


async def test_an_app_serves_on_the_address_it_says(app: App) -> None:
    async with grpc.aio.insecure_channel(app.address) as channel:
        assert (await SolverServiceStub(channel).Place(place_request())).placement.digest
        answer = await HealthStub(channel).Check(HealthCheckRequest())
        assert answer.status == HealthCheckResponse.SERVING
    assert app.metrics_address is None


async def test_metrics_answer_while_the_solver_works_and_know_nothing_of_warming_up() -> None:
    async with App(make_config(metrics_listen="127.0.0.1:0")) as app, busy(app.queue):
        text = await asyncio.to_thread(scrape, app.metrics_address)
    assert "trimtab_moves_total 0.0" in text
    assert 'trimtab_device_info{backend="cpu",device="cpu"' in text
    assert "trimtab_solver_stage_duration_seconds_count" not in text


async def test_calls_show_in_the_metrics() -> None:
    async with App(make_config(metrics_listen="127.0.0.1:0")) as app:
        async with grpc.aio.insecure_channel(app.address) as channel:
            await SolverServiceStub(channel).Place(place_request())
        text = await asyncio.to_thread(scrape, app.metrics_address)
    place = 'method="trimtab.v1.SolverService/Place"'
    assert f'trimtab_rpc_requests_total{{code="OK",{place}}} 1.0' in text
    for stage in ("plan", "evaluate"):
        labels = f'backend="cpu",effort="balanced",stage="{stage}"'
        assert f"trimtab_solver_stage_duration_seconds_count{{{labels}}} 1.0" in text


async def test_a_backend_that_cannot_run_is_passed_over_and_that_shows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What Python does where Numba is not installed.
    monkeypatch.setitem(sys.modules, "trimtab_server.solver.backends.cpu.backend", None)
    with structlog.testing.capture_logs() as logs:
        async with App(make_config(metrics_listen="127.0.0.1:0")) as app:
            text = await asyncio.to_thread(scrape, app.metrics_address)
    assert 'trimtab_backend_fallbacks_total{backend="cpu",reason="missing"} 1.0' in text
    assert 'trimtab_device_info{backend="reference",device="cpu"' in text
    (line,) = [entry for entry in logs if entry["event"] == "backend passed over"]
    assert (line["backend"], line["reason"]) == ("cpu", "missing")


async def test_a_backend_asked_for_by_name_is_not_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "trimtab_server.solver.backends.cpu.backend", None)
    with pytest.raises(InvalidArgumentError, match="backend: 'cpu' cannot run here"):
        App(make_config(backend="cpu"))


async def test_stop_finishes_what_runs_and_says_so() -> None:
    app = await App(make_config()).__aenter__()
    async with grpc.aio.insecure_channel(app.address) as channel, busy(app.queue) as release:
        queue = heard(app)
        running = SolverServiceStub(channel).Pack(pack_request())
        await queue.until("queue_depth", 1)
        stopping = asyncio.create_task(app.stop())
        await asyncio.sleep(0)
        release.set()
        assert (await running).HasField("pack_index")
        assert await stopping is True


@pytest.mark.parametrize("has_caller", [False, True])
@pytest.mark.parametrize("in_a_hurry", [False, True])
async def test_stop_cuts_off_what_runs_too_long_or_when_in_a_hurry(
    in_a_hurry: bool, has_caller: bool
) -> None:
    config = make_config(drain_seconds="60" if in_a_hurry else "0.05")
    app, hurry = await App(config).__aenter__(), asyncio.Event()
    async with (
        grpc.aio.insecure_channel(app.address) as channel,
        busy(app.queue),
        asyncio.timeout(20),
    ):
        queue = heard(app)
        if has_caller:
            running = SolverServiceStub(channel).Pack(pack_request())
            await queue.until("queue_depth", 1)
        if in_a_hurry:
            hurry.set()
        assert await app.stop(hurry) is False
        if has_caller:
            assert await running.code() is not grpc.StatusCode.OK


async def test_stop_finishes_a_job_without_a_caller_that_ends_in_time() -> None:
    app = await App(make_config()).__aenter__()
    async with busy(app.queue) as release:
        stopping = asyncio.create_task(app.stop())
        await asyncio.sleep(0)
        release.set()
        assert await stopping is True


async def test_an_app_does_not_serve_until_its_solver_is_warm(tmp_path: Path) -> None:
    app = App(make_config(listen=f"unix:{tmp_path}/socket"))
    async with AsyncExitStack() as stack:
        release = await stack.enter_async_context(busy(app.queue))
        entering = asyncio.create_task(app.__aenter__())
        channel = grpc.aio.insecure_channel(
            f"unix:{tmp_path}/socket", [("grpc.initial_reconnect_backoff_ms", 100)]
        )
        stub = HealthStub(await stack.enter_async_context(channel))

        async def status(name: str) -> int:
            request = HealthCheckRequest(service=name)
            return (await stub.Check(request, wait_for_ready=True)).status

        names = ("", SOLVER)
        assert [await status(name) for name in names] == [HealthCheckResponse.NOT_SERVING] * 2
        assert not entering.done()
        release.set()
        await entering
        assert [await status(name) for name in names] == [HealthCheckResponse.SERVING] * 2
    await app.stop()


async def test_an_address_in_use_ends_the_start_and_leaves_nothing_open(app: App) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        for setting in ("metrics_listen", "listen"):
            with pytest.raises(InvalidArgumentError, match=f"^{setting}: .*{listen}"):
                await App(make_config(**{setting: listen})).__aenter__()


@pytest.mark.parametrize("setting", ["store", "history", "listen", "tls_cert", "tls_key"])
async def test_a_file_in_a_folder_that_does_not_exist_is_refused_and_none_is_made(
    setting: str, tmp_path: Path
) -> None:
    folder = tmp_path / "none"
    named = f"unix:{folder}/x" if setting == "listen" else f"{folder}/x"
    tls = {**TLS, setting: named} if setting.startswith("tls") else {setting: named}
    with pytest.raises(InvalidArgumentError, match=rf"^{setting}: .*{folder}/x"):
        await App(make_config(**tls)).__aenter__()
    assert not folder.exists()


async def test_the_server_says_at_start_which_files_it_uses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with structlog.testing.capture_logs() as logs:
        serving = asyncio.create_task(serve(make_config(store="a.db", history="b.jsonl")))
        async with asyncio.timeout(180):
            while not (ready := [each for each in logs if each["event"] == "ready"]):
                assert not serving.done()
                await asyncio.sleep(0.01)  # the log has no event to wait for
        signal.raise_signal(signal.SIGTERM)
        await serving
    (line,) = ready
    assert (line["store"], line["history"]) == (str(tmp_path / "a.db"), str(tmp_path / "b.jsonl"))


def test_the_process_says_where_it_listens(server: ServerProcess) -> None:
    with grpc.insecure_channel(server.address) as channel:
        answer = SolverServiceStub(channel).Pack(pack_request())
    assert answer.HasField("pack_index")
    assert "trimtab_build_info" in scrape(server.metrics_address)


@pytest.mark.concurrent
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_signal_drains_and_exits_0(number: signal.Signals) -> None:
    with server_process() as server:
        server.process.send_signal(number)
        assert next_event(server.events, "stopped")["finished"] is True
        assert server.process.wait(timeout=20) == 0


@pytest.mark.concurrent
def test_a_second_signal_ends_a_drain_that_a_long_job_holds_up() -> None:
    with server_process() as server, grpc.insecure_channel(server.address) as channel:
        call = SolverServiceStub(channel).Pack.future(long_request())
        inside = 'trimtab_rpc_in_flight{method="trimtab.v1.SolverService/Pack"} 1.0'
        while inside not in scrape(server.metrics_address):
            assert not call.done()
        server.process.send_signal(signal.SIGTERM)
        next_event(server.events, "draining")
        assert not call.done()
        server.process.send_signal(signal.SIGTERM)
        assert next_event(server.events, "stopped")["finished"] is False
        assert server.process.wait(timeout=20) == 0
        assert call.code() is not grpc.StatusCode.OK


@pytest.mark.concurrent
def test_a_server_whose_logs_fill_a_pipe_goes_on() -> None:
    with (
        server_process("--log-level", "debug") as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        for _ in range(600):  # about 150 bytes each
            HealthStub(channel).Check(HealthCheckRequest(), timeout=20)


def long_request() -> pb.PackRequest:
    """Keeps the solver busy for minutes."""
    weight = np.random.default_rng(0).random((64, 4096))
    options = pb.SolverOptions(restarts=64, max_iterations=-1)
    return pack_request(weight=encode_tensor(weight, "f8"), num_packs=1024, options=options)
