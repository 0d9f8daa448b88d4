"""What workers and server tell each other in a session (PROTOCOL.md)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from trimtab_protocol.placement import IntArray, Placement
from trimtab_protocol.version import Version

MAX_TOKENS = 1 << 62
"""A report of one worker counts fewer tokens than this: more would not fit into sums of int64."""


class HeldState(StrEnum):
    """How far a worker has come with a version: rule P5."""

    ACCEPTED = "accepted"
    PREPARED = "prepared"
    ARMED = "armed"
    DISCARDING = "discarding"


class Held(NamedTuple):
    """A version that a worker has accepted, and neither flipped to nor discarded yet."""

    version: Version
    state: HeldState


@dataclass(frozen=True)
class Hello:
    """The part of a session's first message that the switch depends on.

    Attributes:
        stream: rises with each session of an incarnation.
        gpus: the GPUs that it owns, ascending.
        placement: the placement that it serves by.
        in_force: the version of that placement. None before the worker's first epoch, and after
            its process has started anew.
        held: the version that it has accepted beyond that. None if there is none.
        flipped_at: the step before which it flipped to `in_force`. None for generation 0.
        term: the highest term that it has heard from a server.
        epoch: the highest epoch that it has served in.
        generation: the highest generation that it has heard of, in whichever epoch.
    """

    group_id: str
    worker: str
    incarnation: int
    stream: int
    gpus: tuple[int, ...]
    placement: Placement
    in_force: Version | None = None
    held: Held | None = None
    flipped_at: int | None = None
    term: int = 0
    epoch: int = 0
    generation: int = 0


class Scope(StrEnum):
    """What a worker's counts count, so that nothing is summed twice.

    SOURCE: the tokens that this rank's router has sent out. LOCAL: the tokens that this rank's
    slots have processed. GLOBAL: the counts of all ranks, reduced already; one worker of the
    group reports.
    """

    SOURCE = "source"
    LOCAL = "local"
    GLOBAL = "global"


class Transfer(StrEnum):
    """How weights come into staging.

    PULL: the receiver reads them by itself, at any time. COLLECTIVE: all ranks take part, at
    the same step.
    """

    PULL = "pull"
    COLLECTIVE = "collective"


class SwitchedBy(StrEnum):
    """Who moves the weights of a deployment when it switches.

    WORKERS: workers with sessions, all at the same step. ENGINE: the engine, as it does without
    Trimtab.
    """

    WORKERS = "workers"
    ENGINE = "engine"


class Split(StrEnum):
    """How an engine divides the tokens of an expert over its replicas.

    EVEN: each replica gets the same share. BEST: each batch is divided so that the heaviest GPU
    gets as little as it can.
    """

    EVEN = "even"
    BEST = "best"


@dataclass(frozen=True)
class Topology:
    """The slots, GPUs and nodes of one model instance.

    Attributes:
        num_replicas: R, physical expert slots of one layer over all GPUs; a multiple of `num_gpus`,
            at least the number of experts. Slot r lies on GPU r // (R / G).
        num_gpus: G, GPUs (expert-parallel ranks); a multiple of `num_nodes`.
        num_nodes: N, nodes. GPU g lies on node g // (G / N).
        num_groups: router groups of consecutive experts. With 1, an expert may lie on any GPU. With
            more, all experts of a group stay on one node.
    """

    num_replicas: int
    num_gpus: int
    num_nodes: int = 1
    num_groups: int = 1


class WorkerSetup(NamedTuple):
    """The part of a session's first message that stays the same while the worker's process runs.

    `Hello` in session_service.proto says what its fields are.
    """

    deployment: str
    topology: Topology
    num_experts: int
    scope: Scope
    transfer: Transfer
    staging_slots: int
    max_layers_per_switch: int
    bytes_per_expert: int
    model: str = ""
    first_layer: int = 0


class Report(NamedTuple):
    """What a worker has counted since its process began.

    Attributes:
        seq: 1 until the server has acknowledged a report of this incarnation, and then one more
            with each report.
        first_step: the first step that no report of a lower number covers; last_step + 1 if
            there is no such step.
        last_step: the last step counted; -1 before the first.
        counts_LE: int64 [L, E], tokens of each logical expert, cumulative.
        discard: whether none of these tokens is traffic (a warm-up, a benchmark).
    """

    seq: int
    first_step: int
    last_step: int
    counts_LE: npt.NDArray[np.int64]
    discard: bool = False


@dataclass(frozen=True)
class _OfPlacement:
    """A message about a version, and the digest of its placement."""

    version: Version
    digest: bytes


class Accepted(_OfPlacement):
    """The worker has begun to prepare a version."""


class Prepared(_OfPlacement):
    """The worker has all weights of a version in staging."""


@dataclass(frozen=True)
class Refused(_OfPlacement):
    """The worker will not prepare a version, or failed to; nothing of it is in staging."""

    reason: str


@dataclass(frozen=True)
class Discarded:
    """The worker holds nothing of a version."""

    version: Version


@dataclass(frozen=True)
class Applied(_OfPlacement):
    """The worker has flipped to a version before a step."""

    step: int


Answer = Accepted | Prepared | Refused | Discarded | Applied
"""What a worker says about a switch."""


class Welcome(_OfPlacement):
    """The worker's epoch, and the version of the placement that it serves by."""


@dataclass(frozen=True, eq=False)
class Transfers:
    """What a switch asks of one worker. All arrays are int32; slots are numbered over all GPUs.

    Attributes:
        layers: [K], the layers that differ, ascending.
        old_rows: [K, R], the expert in each slot of those layers in the base.
        new_rows: [K, R], the same in the placement offered.
        receives: [M, 3], layer, slot and expert, ascending by (layer, slot): one for each
            expert that is new to a GPU of the worker.
        receive_sources: [M, X], padded with -1: all GPUs that hold the expert in the base, in
            the order in which to try them. A collective transfer takes the first.
        sends: [M, 4], layer, own slot, destination slot and expert, ascending by (layer,
            destination): every receive, the worker's own included, whose first source is a
            GPU of this worker. The own slot is the lowest there that holds the expert.
        copies: [M, 4], layer, own slot to read, own slot of the same GPU to write, and expert,
            ascending by (layer, slot to write). The flip takes all copies at once: each reads
            its slot as the base has it, even where that slot is written too. The exception is
            an expert that is new to a GPU and due in several of its slots: the lowest receives
            it, and the others copy what that slot has received.
        bytes_received: bytes that the worker receives, also from its own other GPUs.
    """

    layers: IntArray
    old_rows: IntArray
    new_rows: IntArray
    receives: IntArray
    receive_sources: IntArray
    sends: IntArray
    copies: IntArray
    bytes_received: int


@dataclass(frozen=True, eq=False)
class Offer:
    """Prepare this version, if the base is the placement that you serve by.

    The switch leads to `version`, and starts from `base`; each has the digest of its placement.
    `transfers` are the rows that differ, and what this worker has to move.
    """

    version: Version
    digest: bytes
    base: Version
    base_digest: bytes
    transfers: Transfers


class UnreadableOffer(NamedTuple):
    """An offer that a worker can only refuse, for this reason."""

    version: Version
    digest: bytes
    reason: str


class Commit(_OfPlacement):
    """Flip to this version, when all ranks can."""


@dataclass(frozen=True)
class Abort:
    """Discard this version."""

    version: Version


class Directive(NamedTuple):
    """How a worker is to report.

    Attributes:
        report_interval: seconds between two reports.
        lease: seconds without a message after which the server considers the session lost; 0
            if it never does.
    """

    report_interval: float
    lease: float


class ReportAck(NamedTuple):
    """The server has counted this report, and with it what all earlier ones said."""

    seq: int


class Drain(NamedTuple):
    """The server will end in so many seconds."""

    seconds: float


ServerMessage = Welcome | Offer | UnreadableOffer | Commit | Abort | Directive | ReportAck | Drain
"""What a server says in a session."""
