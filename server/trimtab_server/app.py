"""Puts the server together. This is the only module that knows all of its parts."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Self

import structlog
import torch

from trimtab_server import __version__
from trimtab_server.config import ServerConfig
from trimtab_server.device import device_name, resolve_device
from trimtab_server.domain.errors import invalid
from trimtab_server.engine.config import MEMORY
from trimtab_server.engine.deployments import Deployments
from trimtab_server.engine.observer import Observer, Observers
from trimtab_server.engine.operations import Operations
from trimtab_server.engine.planner import Planner
from trimtab_server.engine.queue import SolverQueue
from trimtab_server.engine.store_thread import StoreThread
from trimtab_server.environment import UnknownVariable
from trimtab_server.history.config import NONE
from trimtab_server.history.history import History
from trimtab_server.memory import giving_back
from trimtab_server.metrics.config import OFF
from trimtab_server.metrics.deployments import DeploymentMetrics
from trimtab_server.metrics.endpoint import serve_metrics
from trimtab_server.metrics.recorder import Recorder
from trimtab_server.rpc.server import RpcServer
from trimtab_server.solver.backends.backend import Backend, FallbackReason
from trimtab_server.solver.backends.select import backend_for
from trimtab_server.store.errors import StoreError
from trimtab_server.store.memory import MemoryStore
from trimtab_server.store.sqlite import SqliteStore
from trimtab_server.store.store import Store
from trimtab_server.warming import Shape, warm_shapes

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class App:
    """A server that runs inside `async with`. Create it on the event loop that runs it.

    Attributes:
        address: where gRPC listens, host:port; set on entry.
        metrics_address: host:port of /metrics, set on entry; None if it is off.
        queue: of the solver.
    """

    address: str
    metrics_address: str | None = None

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._device = resolve_device(config.solver.device)
        self._recorder = recorder = Recorder()
        self._fallbacks_logged: set[tuple[str, str]] = set()
        self._backend = backend_for(
            config.solver.backend, self._device, self._on_fallback, wait_for_kernels=False
        )
        use_threads = partial(_use_threads, config.solver.solver_threads)
        self.queue = SolverQueue(config.solver.queue_size, recorder, use_threads)
        sessions, max_shown = config.sessions, config.metrics.max_deployment_series
        metrics = DeploymentMetrics(recorder.registry, max_shown=max_shown)
        self._history = History(config.history, metrics.history_lost)
        store = StoreThread(
            partial(_make_store, sessions.store), self._history.barrier, sessions.save_seconds
        )
        observers = Observers(self._history, metrics)
        self._deployments = Deployments(sessions, store, observers, self._planner(recorder))
        operations = Operations(store, observers, sessions.max_operations)
        planner = self._planner(recorder)
        self._rpc = RpcServer(
            config.rpc, planner, sessions, self._deployments, operations, recorder
        )
        self._phase: str | None = "the server is warming up"
        self._beside = AsyncExitStack()

    @property
    def not_ready(self) -> str | None:
        """Why the server does not serve now; None if it does."""
        return self._phase or self._deployments.store_health.blocked_reason

    async def __aenter__(self) -> Self:
        self._describe()
        try:
            listen = self._config.metrics.metrics_listen
            if listen != OFF:
                endpoint = serve_metrics(listen, self._recorder.registry, lambda: self.not_ready)
                self.metrics_address = self._beside.enter_context(endpoint)
            await self._open_store()
            self.address = await self._rpc.start()
            await self.warm()
            await self._rpc.open()
            await self._beside.enter_async_context(giving_back())
            self._phase = None
        except BaseException:
            await self._end(finished=False)
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def warm(self) -> None:
        """Carry out a small request of each kind, so that no caller has to wait for it."""
        # With a recorder of its own, since these loads must not be counted. On the host, since a
        # GPU's kernels are compiled for each size, and nobody will use those of these sizes.
        await self._planner(Recorder(), self._backend.host).warm()

    async def stop(self, hurry: asyncio.Event | None = None) -> bool:
        """Refuse new work, finish the work that has begun, then stop. Repeated calls do nothing.

        Args:
            hurry: set this event to stop at once: unfinished work is then cancelled, as it is
                after `drain_seconds`.

        Returns:
            Whether all work was finished.
        """
        self._phase = "the server is shutting down"
        finished = await self._drain(hurry or asyncio.Event())
        await self._end(finished=finished)
        return finished

    async def _drain(self, hurry: asyncio.Event) -> bool:
        finishing = asyncio.ensure_future(self._finish_work())
        hurried = asyncio.ensure_future(hurry.wait())
        await asyncio.wait(
            (finishing, hurried),
            timeout=self._config.rpc.drain_seconds,
            return_when=asyncio.FIRST_COMPLETED,
        )
        finished = finishing.done()
        for task in (finishing, hurried):
            task.cancel()
        await asyncio.gather(finishing, hurried, return_exceptions=True)
        return finished

    async def _finish_work(self) -> None:
        await self._rpc.drain()
        # A job may still run after its caller has gone.
        await self.queue.close()

    async def _end(self, *, finished: bool) -> None:
        await self._rpc.stop(at_once=not finished)
        if not finished:
            self.queue.abandon()
        await self._deployments.close()
        self._history.close()
        await self._beside.aclose()

    async def _open_store(self) -> None:
        try:
            await self._deployments.open()
        except StoreError as error:
            raise invalid("store", str(error)) from error

    def _planner(self, observer: Observer, backend: Backend | None = None) -> Planner:
        solver, limits = self._config.solver, self._config.limits
        # Compiled backends take tensors from the host, and copy them to the device themselves.
        device = self._device if self._backend.name == "reference" else torch.device("cpu")
        return Planner(
            self.queue, backend or self._backend, device, limits, solver.effort, observer
        )

    def _on_fallback(self, backend: str, reason: FallbackReason, detail: str) -> None:
        self._recorder.fallback(backend, reason)
        # A failure is logged each time: the next attempt is only made after a while.
        if reason == "error" or (backend, reason) not in self._fallbacks_logged:
            self._fallbacks_logged.add((backend, reason))
            log.warning("backend passed over", backend=backend, reason=reason, detail=detail)

    def _describe(self) -> None:
        device = str(self._device)
        self._recorder.runs_on(device, device_name(self._device), self._backend.name)
        self._recorder.follow_kinds(self._backend.name, lambda: self._backend.kinds)
        self._recorder.built_from(__version__, torch.__version__)


async def serve(config: ServerConfig, unknown: Sequence[UnknownVariable] = ()) -> None:
    """Run a server until SIGTERM or SIGINT. A second signal stops it at once.

    Args:
        config: of the server.
        unknown: variables of the environment that the log warns of.
    """
    stop, hurry = asyncio.Event(), asyncio.Event()
    for variable in unknown:
        log.warning("no such setting", variable=variable.name, nearest=variable.nearest)
    with _signals_set(stop, hurry):
        app = await App(config).__aenter__()
        log.info(
            "ready",
            address=app.address,
            metrics=app.metrics_address or OFF,
            store=_absolute(config.sessions.store, MEMORY),
            history=_absolute(config.history.history, NONE),
            device=str(resolve_device(config.solver.device)),
            version=__version__,
        )
        await stop.wait()
        log.info("draining", seconds=config.rpc.drain_seconds)
        finished = await app.stop(hurry)
        log.info("stopped", finished=finished)


async def warm(config: ServerConfig, shapes: Sequence[Shape] = ()) -> None:
    """Compile what the solver of this configuration needs, before a server starts.

    Args:
        config: of the server.
        shapes: sizes of models. A GPU needs kernels for each of them.

    Raises:
        CannotWarmError: the kernels for a shape could not be compiled.
    """
    app = App(config)
    try:
        await app.warm()
    finally:
        await app.queue.close()
    device = resolve_device(config.solver.device)
    if shapes and device.type == "cpu":
        log.warning("without a GPU there is nothing to compile for a shape", device=str(device))
    began = time.perf_counter()
    for shape in warm_shapes(shapes, config.solver.backend, device):
        log.info("warm", shape=str(shape), seconds=round(time.perf_counter() - began, 1))
        began = time.perf_counter()


@contextmanager
def _signals_set(first: asyncio.Event, second: asyncio.Event) -> Iterator[None]:
    """The first signal sets the first event, each later one the second."""
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        (second if first.is_set() else first).set()

    for number in _SIGNALS:
        loop.add_signal_handler(number, on_signal)
    try:
        yield
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)


def _absolute(path: str, no_file: str) -> str:
    """The absolute path that a setting names; what it says if that is no file."""
    return path if path == no_file else str(Path(path).resolve())


def _make_store(where: str) -> Store:
    """Opens the store that the setting `store` names.

    Raises:
        StoreError: the store cannot be opened.
    """
    return MemoryStore() if where == MEMORY else SqliteStore(Path(where))


def _use_threads(threads: int) -> None:
    # Called on the solver's thread, since torch keeps this setting for each thread.
    if threads:
        torch.set_num_threads(threads)
