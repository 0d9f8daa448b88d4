"""The ranks of a group under test, and the threads that call their adapters."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import CancelledError, Future, wait
from typing import Any, NamedTuple

import numpy as np

from trimtab_client.worker.counters import slots_of
from trimtab_tools.conformance.adapter import EngineAdapter, FloatArray, GroupSpec, MakeGroup
from trimtab_tools.conformance.errors import BrokenContractError, NotApplicableError
from trimtab_tools.conformance.expert_outputs import Observation
from trimtab_tools.conformance.serial_thread import SerialThread


class _Rank(NamedTuple):
    adapter: EngineAdapter
    session: SerialThread
    engine: SerialThread


class Ranks:
    """The adapter of each rank, with a thread for its session and one for its engine.

    No wait is longer than the patience, in seconds. So an adapter that blocks is found; its
    threads are left blocked.

    Raises:
        NotApplicableError: the engine has no such groups.
        BrokenContractError: the adapters cannot be made.
    """

    def __init__(self, make_group: MakeGroup, spec: GroupSpec, patience: float) -> None:
        self._spec, self._patience = spec, patience
        self._ranks = {
            i: _Rank(adapter, SerialThread(f"session {i}"), SerialThread(f"engine {i}"))
            for i, adapter in enumerate(self._make(make_group))
        }

    def alive(self) -> list[int]:
        """The index of each rank that is not closed."""
        return list(self._ranks)

    def name(self, rank: int) -> str:
        """The name of a rank in messages."""
        gpus = self._spec.gpus[rank]
        return f"rank {rank} (GPU{'s' * (len(gpus) > 1)} {', '.join(map(str, gpus))})"

    def call_session(self, rank: int, method: str, *arguments: Any) -> Future[Any]:
        """Have the session's thread call a method of the adapter."""
        called = self._ranks[rank]
        return called.session.submit(getattr(called.adapter, method), *arguments)

    def call_engine(self, rank: int, method: str, *arguments: Any) -> Future[Any]:
        """Have the engine's thread call a method of the adapter."""
        called = self._ranks[rank]
        return called.engine.submit(getattr(called.adapter, method), *arguments)

    def observe(self, tokens_TH: FloatArray, when: str) -> dict[int, Observation]:
        """How each rank routes and what it computes, asked on its engine's thread."""
        calls = {
            i: rank.engine.submit(self._observation, rank.adapter, self._spec.gpus[i], tokens_TH)
            for i, rank in self._ranks.items()
        }
        return self.results(calls, f"phy2log and compute {when}")

    def close(self, ranks: Collection[int]) -> None:
        """Close ranks, all at once. The threads that call them end when they are free."""
        closing = {i: self._ranks.pop(i) for i in ranks}
        # On threads of their own, since the engines' threads may be stuck.
        ends = {i: _run_apart(f"end of {i}", rank.adapter.close) for i, rank in closing.items()}
        for rank in closing.values():
            rank.session.end()
            rank.engine.end()
        self.results(ends, "close")

    def results(self, calls: Mapping[int, Future[Any]], what: str) -> dict[int, Any]:
        """Wait for calls, which must end and must not fail; returns their results.

        Raises:
            BrokenContractError: a call does not end, or fails.
        """
        self.wait(calls, what)
        for rank, call in calls.items():
            if call.exception() is not None:
                raise BrokenContractError(f"{self.name(rank)}: {what}: {failure_of(call)}")
        return {rank: call.result() for rank, call in calls.items()}

    def wait(self, calls: Mapping[int, Future[Any]], what: str) -> None:
        """Wait for calls, which must end.

        Raises:
            BrokenContractError: a call does not end.
        """
        wait(calls.values(), self._patience)
        stuck = [rank for rank, call in calls.items() if not call.done()]
        if stuck:
            ended = {rank: call for rank, call in calls.items() if call.done()}
            # A rank often waits for another one, which has failed.
            failures = [
                f"; {self.name(rank)}: {failure_of(call)}"
                for rank, call in ended.items()
                if call.cancelled() or call.exception() is not None
            ]
            raise BrokenContractError(
                f"{self.name(stuck[0])}: {what} has not ended after {self._patience:g} s"
                + "".join(failures)
            )

    def _make(self, make_group: MakeGroup) -> Iterable[EngineAdapter]:
        made = _run_apart("maker", make_group, self._spec)
        wait([made], self._patience)
        if not made.done():
            raise BrokenContractError(f"make_group has not ended after {self._patience:g} s")
        error = made.exception()
        if isinstance(error, NotImplementedError):
            raise NotApplicableError(f"the engine has no such groups: {error}")
        if error is not None:
            raise BrokenContractError(f"make_group failed: {error!r}") from error
        adapters: list[EngineAdapter] = list(made.result())
        if len(adapters) != len(self._spec.gpus):
            wanted = len(self._spec.gpus)
            raise BrokenContractError(f"make_group made {len(adapters)} ranks, not {wanted}")
        return adapters

    def _observation(
        self, adapter: EngineAdapter, gpus: tuple[int, ...], tokens_TH: FloatArray
    ) -> Observation:
        placement = self._spec.placement
        slots_O = slots_of(gpus, placement)
        outputs_LOTH = np.empty((len(placement.phy2log), len(slots_O), *tokens_TH.shape))
        for layer, i in np.ndindex(outputs_LOTH.shape[:2]):
            try:
                output = adapter.compute(layer, int(slots_O[i]), tokens_TH.copy())
                outputs_LOTH[layer, i] = _shaped(np.asarray(output), tokens_TH.shape)
            except Exception as error:
                error.add_note(f"(compute: layer {layer}, slot {slots_O[i]})")
                raise
        return Observation(np.array(adapter.phy2log()), slots_O, outputs_LOTH.astype(np.float32))


def failure_of(transfer: Future[Any]) -> str | None:
    """Why a transfer has failed, as a session sees it; None if it has succeeded."""
    try:
        result = transfer.result()
    except CancelledError:
        return "the transfer was cancelled"
    except Exception as error:  # noqa: BLE001 - any error of an adapter is a failure
        return " ".join([repr(error), *getattr(error, "__notes__", [])])
    return None if result is None or result is True else f"the answer is {result!r}"


def _run_apart(name: str, call: Callable[..., Any], *arguments: Any) -> Future[Any]:
    """Run a call on a thread of its own."""
    thread = SerialThread(name)
    done = thread.submit(call, *arguments)
    thread.end()
    return done


def _shaped(output: FloatArray, shape: tuple[int, ...]) -> FloatArray:
    if output.shape != shape:
        raise ValueError(f"output of shape {output.shape}, not {shape}")
    return output
