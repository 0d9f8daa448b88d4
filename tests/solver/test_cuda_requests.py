"""The cuda backend over several requests: failures, captures, streams, memory."""

from __future__ import annotations

import queue
import threading

import pytest
import torch

from tests.solver.fake_gpu import FakeGpu, FakeJob, FakeStream
from trimtab_server.domain.topology import Topology
from trimtab_server.solver.backends.cuda import backend as backends
from trimtab_server.solver.backends.cuda.backend import Cuda
from trimtab_server.solver.settings import Settings
from trimtab_server.warming import CannotWarmError, Shape, warm_shapes

HOST, DEVICE = -1, 0
"""Who made a plan; the slots of the host's plans hold -1, those of the device 0."""


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    return FakeGpu(monkeypatch)


def planned_by(cuda: Cuda, layers: int, where: str = "cpu") -> int:
    """Who plans this number of layers; each number is a kind of request of its own."""
    load_LE = torch.ones(layers, 4, dtype=torch.float64, device=where)
    slots_LR = cuda.plan(load_LE, Topology(4, 2), Settings()).phy2log_LR
    return HOST if slots_LR.device.type == "cpu" and int(slots_LR.min()) < 0 else DEVICE


def no_memory(_job: FakeJob) -> None:
    raise torch.cuda.OutOfMemoryError("no memory left")


@pytest.mark.parametrize("wait_for_kernels", [True, False])
def test_a_kind_that_failed_is_tried_again_after_a_while(
    gpu: FakeGpu, wait_for_kernels: bool
) -> None:
    cuda, works = gpu.cuda(wait_for_kernels=wait_for_kernels), gpu.launched

    def ask() -> int:
        answered = planned_by(cuda, 1)
        cuda.wait_until_compiled()
        return answered

    gpu.launched = no_memory
    assert ask() == HOST
    assert gpu.told[-1] == ("error", "no memory left")
    assert cuda.kinds == {"ready": 0, "compiling": 0, "failing": 1}
    gpu.launched = works
    attempts = len(gpu.jobs)
    gpu.now += 9
    assert ask() == HOST
    assert len(gpu.jobs) == attempts, "too early"
    assert gpu.told[-1] == (
        "backoff",
        "failed 1 times, next attempt in 1 s: no memory left",
    )
    gpu.now += 1
    ask()
    assert ask() == DEVICE
    assert cuda.kinds == {"ready": 1, "compiling": 0, "failing": 0}


def test_the_wait_doubles_and_stays_within_ten_minutes(gpu: FakeGpu) -> None:
    cuda = gpu.cuda(wait_for_kernels=True)
    gpu.launched = no_memory
    waits, last = [], 0.0
    for _ in range(9):
        while planned_by(cuda, 1) == HOST and gpu.told[-1][0] == "backoff":
            gpu.now += 10
        waits.append(gpu.now - last)
        last = gpu.now
    assert waits == [0, 10, 20, 40, 80, 160, 320, 600, 600]


def test_a_ready_kind_that_fails_once_is_tried_again(gpu: FakeGpu) -> None:
    cuda, works = gpu.cuda(wait_for_kernels=True), gpu.replayed
    assert [planned_by(cuda, 1), planned_by(cuda, 1)] == [DEVICE, DEVICE]

    def fail() -> None:
        raise RuntimeError("unspecified launch failure")

    gpu.replayed = fail
    assert planned_by(cuda, 1) == HOST
    gpu.replayed = works
    assert planned_by(cuda, 1) == HOST
    gpu.now += 10
    assert planned_by(cuda, 1) == DEVICE


def test_other_kinds_do_not_wait_for_one_that_failed(gpu: FakeGpu) -> None:
    cuda, works = gpu.cuda(wait_for_kernels=True), gpu.launched
    gpu.launched = no_memory
    planned_by(cuda, 1)
    gpu.launched = works
    assert planned_by(cuda, 2) == DEVICE


def test_failures_of_ever_new_shapes_do_not_fill_the_memory(gpu: FakeGpu) -> None:
    cuda = gpu.cuda(wait_for_kernels=True)
    gpu.launched = no_memory
    for layers in range(1, 400):
        planned_by(cuda, layers)
    assert cuda.kinds["failing"] == 256


def test_the_host_answers_if_no_thread_can_be_started(
    gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda = gpu.cuda(wait_for_kernels=False)

    def no_thread(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_thread)
        assert planned_by(cuda, 1) == HOST
    assert gpu.told[-1] == ("error", "can't start new thread")
    assert cuda.kinds == {"ready": 0, "compiling": 0, "failing": 1}
    gpu.now += 10
    planned_by(cuda, 1)
    cuda.wait_until_compiled()
    assert planned_by(cuda, 1) == DEVICE


class _ObservedLock:
    """A lock that reports when a thread has to wait for it."""

    def __init__(self, waiting: queue.Queue[str]) -> None:
        self._lock, self._waiting = threading.Lock(), waiting

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            self._waiting.put("waits")
            self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_nothing_is_replayed_during_a_capture(
    gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda = gpu.cuda(wait_for_kernels=True)
    planned_by(cuda, 1)
    seen: queue.Queue[str] = queue.Queue()
    monkeypatch.setattr(backends, "_DEVICE_LOCK", _ObservedLock(seen))
    answers: list[int] = []
    other = threading.Thread(target=lambda: answers.append(planned_by(cuda, 1)))
    # Torch has given the same stream to both kinds, as it does after 32 streams.
    gpu.replayed = lambda: seen.put("replayed")

    def ask_meanwhile(job: FakeJob) -> None:
        if job.plan.layers == 2 and gpu.current_stream().capturing:
            other.start()
            seen.get(timeout=30)

    gpu.launched = ask_meanwhile
    assert planned_by(cuda, 2) == DEVICE
    other.join()
    assert answers == [DEVICE]
    assert gpu.told == []


def test_compiling_in_the_background_waits_for_the_callers_stream(gpu: FakeGpu) -> None:
    cuda, of_caller = gpu.cuda(wait_for_kernels=False), FakeStream()
    gpu.buffers = "meta"
    launched: list[int] = []
    gpu.launched = lambda _: launched.append(gpu.current_stream().after.get(of_caller, 0))
    with gpu.on_stream(of_caller):
        # The caller's stream still computes the load; then it is copied.
        of_caller.work()
        planned_by(cuda, 1, "meta")
        asked = of_caller.after[of_caller]
    cuda.wait_until_compiled()
    assert asked == 2, "the caller's work, and the copy"
    ordered = [amount >= asked for amount in launched]
    assert ordered
    assert all(ordered)


def test_kinds_are_kept_as_the_devices_memory_allows(gpu: FakeGpu) -> None:
    cuda = gpu.cuda(wait_for_kernels=True)
    gpu.memory = 100
    for layers in (20, 21, 22, 23, 24):
        assert planned_by(cuda, layers) == DEVICE
        # Half of the memory that would be free without them.
        assert sum(gpu.alive) <= 50
    assert gpu.alive == [23, 24]


def test_the_least_recently_used_kind_is_dropped(gpu: FakeGpu) -> None:
    cuda = gpu.cuda(wait_for_kernels=True)
    gpu.memory = 100
    for layers in (15, 16, 15, 17):
        planned_by(cuda, layers)
    assert sorted(gpu.alive) == [15, 16, 17]
    planned_by(cuda, 15)
    planned_by(cuda, 18)
    assert sorted(gpu.alive) == [15, 17, 18]


def test_many_small_kinds_are_kept_at_once(gpu: FakeGpu) -> None:
    cuda = gpu.cuda(wait_for_kernels=True)
    gpu.memory = 1000
    for layers in range(1, 21):
        planned_by(cuda, layers)
    assert cuda.kinds["ready"] == len(gpu.alive) == 20


def test_the_host_answers_if_the_device_lacks_memory(gpu: FakeGpu) -> None:
    cuda = gpu.cuda(wait_for_kernels=True)
    gpu.memory = 100
    planned_by(cuda, 20)
    assert planned_by(cuda, 60) == HOST
    assert gpu.told[-1][0] == "error"
    assert "take 60 bytes; at most 50 may be used" in gpu.told[-1][1]
    assert gpu.alive == [20], "nothing is dropped"


def test_two_threads_that_ask_for_a_new_kind_share_its_kernels(gpu: FakeGpu) -> None:
    cuda = gpu.cuda(wait_for_kernels=True)
    both = threading.Barrier(2)
    answers: list[int] = []

    def ask() -> None:
        both.wait()
        answers.append(planned_by(cuda, 1))

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [DEVICE, DEVICE]
    assert len(gpu.jobs) == 1


def test_warming_a_shape_compiles_and_captures_each_effort(gpu: FakeGpu) -> None:
    captured: list[bool] = []
    gpu.launched = lambda _: captured.append(gpu.current_stream().capturing)
    list(warm_shapes([Shape.parse("3x8:12/4")], "cuda", torch.device("cuda", 0)))
    assert captured == [False, True] * 2


def test_shapes_that_do_not_fit_together_are_warmed_one_after_another(gpu: FakeGpu) -> None:
    gpu.memory = 100
    shapes = [Shape.parse(f"{layers}x8:12/4") for layers in range(20, 26)]
    warmed = list(warm_shapes(shapes, "cuda", torch.device("cuda", 0)))
    assert warmed == shapes


def test_warming_a_shape_that_does_not_compile_says_so(gpu: FakeGpu) -> None:
    gpu.launched = no_memory
    with pytest.raises(CannotWarmError, match=r"^3x8:12/4: cuda: no memory left"):
        list(warm_shapes([Shape.parse("3x8:12/4")], "cuda", torch.device("cuda", 0)))
