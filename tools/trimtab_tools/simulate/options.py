"""The options of a fleet: its sizes, its traffic, and how it switches."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trimtab_client.checks import integer, real
from trimtab_client.exceptions import invalid
from trimtab_client.options import Topology
from trimtab_client.placement import Placement
from trimtab_protocol.messages import Transfer
from trimtab_tools.simulate.trace import Counts, Trace, read_trace

_MAX_HIDDEN = 1 << 14

_DEFAULTS = {"layers": 4, "experts": 32, "hidden": 64, "tokens": 16}
# Small, since a trace has far more tokens, and most time shall go to the routing.
_HIDDEN_OF_TRACE = 8


@dataclass(frozen=True, kw_only=True)
class FleetOptions:
    """The sizes of a fleet, and how it works. Each rank is a process with one GPU.

    Attributes:
        ranks: G, worker processes.
        layers: L; 0 for 4, or for all layers of the trace. If the trace has more, the fleet
            takes this many of them, evenly spaced.
        experts: E, logical experts of a layer; 0 for 32, or for as many as the trace has.
        slots: R, expert slots of a layer, over all ranks; 0 for as many on each rank as its
            share of the experts takes, and one to spare.
        hidden: H; an expert is one float32 matrix [H, H]; 0 for 64, or for 8 with a trace.
        tokens: number of tokens that a rank routes in a layer of a step; 0 for 16. With a trace
            it must be 0: the trace gives the number.
        trace: a file with real loads to replay, [T, L, E]; None for synthetic traffic. Its
            counts are scaled down if they are too many: see `trace_divisor`.
        format: of the trace: one of `formats.FORMATS`; None to see by the file what it is.
        windows: the first window of the trace to replay, and the one after the last; None for
            all windows.
        steps_per_window: number of steps over which a window of the trace is spread.
        transfer: how weights come into staging: PULL or COLLECTIVE, or these names in
            lower case.
        barrier_every: b, steps from one barrier to the next.
        step_seconds: shortest time of a step; 0 for no limit.
        seed: of weights, tokens and random placements.
        deployment: name of the deployment.

    Raises:
        InvalidArgumentError: a value is out of its range or does not fit the others, or
            the trace cannot be read.
    """

    ranks: int = 8
    layers: int = 0
    experts: int = 0
    slots: int = 0
    hidden: int = 0
    tokens: int = 0
    trace: Path | None = None
    format: str | None = None
    windows: tuple[int, int] | None = None
    steps_per_window: int = 16
    transfer: Transfer = Transfer.PULL
    barrier_every: int = 1
    step_seconds: float = 0.01
    seed: int = 0
    deployment: str = "simulated"

    def __post_init__(self) -> None:
        for name in ("ranks", "barrier_every", "steps_per_window"):
            integer(getattr(self, name), name, low=1)
        for name in ("layers", "experts", "tokens", "slots"):
            integer(getattr(self, name), name, low=0)
        sizes = dict(_DEFAULTS) if self.trace is None else self._sizes_of_trace()
        if self.trace is None and self.windows is not None:
            raise invalid("windows", f"{self.windows} are given without a trace")
        for name, value in sizes.items():
            object.__setattr__(self, name, getattr(self, name) or value)
        # With a smaller H, two experts might give the same result for a token.
        integer(self.hidden, "hidden", 8, _MAX_HIDDEN)
        integer(self.seed, "seed", low=0)
        if not 0 <= real(self.step_seconds, "step_seconds") <= 60:
            raise invalid("step_seconds", f"{self.step_seconds} is not in [0, 60]")
        names = [each.value for each in Transfer]
        if self.transfer not in [*Transfer, *names]:
            raise invalid("transfer", f"{self.transfer!r} is not one of {names}")
        object.__setattr__(self, "transfer", Transfer(self.transfer))
        self._set_slots()

    def _sizes_of_trace(self) -> dict[str, int]:
        windows, layers, experts = self.loads().shape
        if self.experts not in (0, experts):
            raise invalid("experts", f"{self.experts} is not the number in the trace ({experts})")
        if self.tokens:
            raise invalid("tokens", f"{self.tokens} is given, but the trace has its own number")
        object.__setattr__(self, "windows", self.windows or (0, windows))
        return {"layers": layers, "experts": experts, "hidden": _HIDDEN_OF_TRACE}

    def _set_slots(self) -> None:
        if self.slots == 0:
            share = -(-self.experts // self.ranks) + 1
            object.__setattr__(self, "slots", self.ranks * share)
        if self.slots % self.ranks:
            raise invalid("slots", f"{self.slots} is not a multiple of ranks ({self.ranks})")
        if self.slots < self.experts:
            raise invalid("slots", f"{self.slots} is less than experts ({self.experts})")

    def loads(self) -> Counts:
        """The loads of the trace that are replayed, read from the file: int64 [T, L, E].

        Raises:
            InvalidArgumentError: there is no trace, or it cannot be read.
        """
        return self._read_trace().load_TLE

    @property
    def trace_divisor(self) -> int:
        """By what the counts of the trace are divided; 1 without a trace."""
        return 1 if self.trace is None else self._read_trace().divisor

    def _read_trace(self) -> Trace:
        if self.trace is None:
            raise invalid("trace", "None has no loads: the traffic is synthetic")
        return read_trace(self.trace, self.format, self.windows, self.layers)

    @property
    def num_windows(self) -> int:
        """The number of windows that are replayed; 0 without a trace."""
        first, end = self.windows or (0, 0)
        return end - first

    @property
    def slots_per_rank(self) -> int:
        """S: slots of a rank in a layer."""
        return self.slots // self.ranks

    @property
    def bytes_per_expert(self) -> int:
        """The size of an expert's matrix."""
        return self.hidden * self.hidden * 4

    @property
    def topology(self) -> Topology:
        """The topology of the deployment."""
        return Topology(num_replicas=self.slots, num_gpus=self.ranks)

    @property
    def untouched(self) -> Placement:
        """The placement that the ranks load at first."""
        return Placement.untouched(self.layers, self.experts, self.slots, self.ranks)
