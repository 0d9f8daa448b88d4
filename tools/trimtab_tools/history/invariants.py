"""The invariants I1-I8 and liveness of PROTOCOL.md, one function each.

Each takes the past and the next event, and yields a message for each violation.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from trimtab_protocol import history
from trimtab_protocol.placement import Placement
from trimtab_tools.history.past import Digested, Past, Placed


def i1(past: Past, event: history.Event) -> Iterator[str]:
    """The versions in force at a worker never fall, neither within an epoch nor between epochs."""
    if isinstance(event, history.InForce | history.Flipped):
        before = past.in_force.get(event.process)
        if before is not None and event.version < before.version:
            yield (
                f"{event.process} goes back to {event.version} "
                f"from {before.version} in line {before.line}"
            )


def i2(past: Past, event: history.Event) -> Iterator[str]:
    """A version has one digest, which is that of its placement if that is recorded."""
    if not isinstance(event, Digested):
        return
    first = past.digests.get(event.version, event)
    if event.digest != first.digest:
        yield (
            f"{event.version} has digest {_short(event.digest)}, "
            f"but {_short(first.digest)} in line {first.line}"
        )
    if isinstance(event, Placed) and event.placement and event.placement.digest != event.digest:
        yield (
            f"{event.version} has digest {_short(event.digest)}, "
            f"but that of its placement is {_short(event.placement.digest)}"
        )


def i3(past: Past, event: history.Event) -> Iterator[str]:
    """Only committed versions are sent as Commit, flipped to, or served, except generation 0."""
    committed = past.committed
    match event:
        case history.CommitSent() if event.version not in committed:
            yield f"Commit of {event.version} is sent to {event.worker!r} before it is durable"
        case history.Flipped() if event.version not in committed:
            yield f"{event.process} flips to {event.version}, which is not committed"
        case history.InForce() if event.version.generation > 0 and event.version not in committed:
            yield f"{event.process} serves with {event.version}, which is not committed"


def i4(past: Past, event: history.Event) -> Iterator[str]:
    """A commit comes after Prepared by every member. A committed switch is never aborted."""
    if isinstance(event, history.Aborting | history.Aborted) and event.version in past.committed:
        line = past.committed[event.version]
        yield f"{event.version} is aborted, but line {line} commits it"
    if not isinstance(event, history.Committed):
        return
    if event.version in past.aborted:
        line = past.aborted[event.version]
        yield f"{event.version} is committed, but line {line} aborts it"
    epoch = past.epochs.get(event.version.epoch)
    if epoch is None:
        yield f"{event.version} is committed, but its epoch was never opened"
        return
    for process in epoch.processes:
        if (event.version, event.digest, process) not in past.prepared:
            yield (
                f"{event.version} is committed with digest {_short(event.digest)}, "
                f"which {process} has not prepared"
            )


def i5(past: Past, event: history.Event) -> Iterator[str]:
    """All ranks flip to a version at the same step."""
    if isinstance(event, history.Flipped):
        first = past.flips.get(event.version, event)
        if event.step != first.step:
            yield (
                f"{event.process} flips to {event.version} at step {event.step}, "
                f"but {first.process} at step {first.step} in line {first.line}"
            )


def i6(past: Past, event: history.Event) -> Iterator[str]:
    """The base of an offer is the version applied last in the newest epoch."""
    if not isinstance(event, history.Offered):
        return
    if not past.is_newest(event.version.epoch):
        newest = f"the newest is {past.newest.epoch}" if past.newest else "there is none yet"
        yield f"{event.version} is offered in epoch {event.version.epoch}, but {newest}"
        return
    if event.base != past.applied:
        yield f"{event.version} is based on {event.base}, but {past.applied} was applied last"


def i7(past: Past, event: history.Event) -> Iterator[str]:
    """For each process, added differences + recorded gaps = the last accepted counts."""
    if not isinstance(event, history.Reported):
        return
    last = past.seqs.get(event.process)
    if last is not None and event.seq <= last:
        yield f"report {event.seq} of {event.process} is accepted after report {last}"
    for name, value in (("difference", event.difference), ("gap", event.gap)):
        if value < 0:
            yield f"report {event.seq} of {event.process} has a {name} of {value}"
    before = past.counted.get(event.process, 0)
    if (due := before + event.difference + event.gap) != event.counts:
        yield (
            f"report {event.seq} of {event.process} counts {event.counts}, but {before} before "
            f"+ difference {event.difference} + gap {event.gap} are {due}"
        )


def i8(_: Past, event: history.Event) -> Iterator[str]:
    """Every expert has a slot in each layer, and each slot holds one of the experts."""
    if isinstance(event, Placed) and event.placement is not None:
        for fault in _faults(event.placement):
            yield f"{event.version}: {fault}"


def _faults(placement: Placement) -> Iterator[str]:
    """At most one fault of each layer."""
    experts = placement.num_experts
    for layer, row_R in enumerate(placement.phy2log):
        outside = np.flatnonzero((row_R < 0) | (row_R >= experts))
        # Ascending, without duplicates. No expert is missing if this is 0, 1, 2 up to E - 1.
        present = np.unique(row_R)
        if outside.size:
            slot = outside[0]
            yield f"layer {layer}, slot {slot}: {row_R[slot]} is not an expert in [0, {experts})"
        elif present.size < experts:
            gaps = np.flatnonzero(present != np.arange(present.size))
            missing = gaps[0] if gaps.size else present.size
            yield f"layer {layer}: expert {missing} has no slot"


def liveness(past: Past) -> Iterator[tuple[int, str]]:
    """At the end no switch is open, and all members serve with the version applied last.

    Yields:
        The line and the message of each violation. Members without any lines are not judged.
    """
    if past.switch is not None:
        stage = "committed" if past.switch.committed else "offered"
        yield past.switch.line, f"the switch to {past.switch.version} is still {stage} at the end"
    if past.newest is None:
        return
    for process in past.newest.processes:
        last = past.in_force.get(process)
        if last is None and process.worker in past.speaking:
            yield past.newest.line, f"{process} never served in epoch {past.newest.epoch}"
        elif last is not None and last.version != past.applied:
            where = f"{process} is at {last.version} at the end"
            yield last.line, f"{where}, but {past.applied} was applied last"


def _short(digest: bytes) -> str:
    return digest.hex()[:12]
