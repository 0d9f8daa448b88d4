"""The rules P1 to P4 of PROTOCOL.md, as far as a history shows whether they were kept."""

from __future__ import annotations

from collections.abc import Iterator

from trimtab_protocol import history
from trimtab_tools.history.past import Past


def p1(last: history.Started | None, event: history.Started) -> Iterator[str]:
    """Each start of the server has a higher term. This rule is not about one deployment."""
    if last is not None and event.term <= last.term:
        yield f"the server starts in term {event.term} after term {last.term} in line {last.line}"


def p2(past: Past, event: history.Event) -> Iterator[str]:
    """Epochs have the right numbers, groups and members, and only the newest is served."""
    match event:
        case history.EpochOpened():
            yield from _follows(past, event)
            yield from _owners(event)
        case history.InForce() | history.Flipped():
            yield from _belongs(past, event)
        case history.Committed() | history.CommitSent():
            if past.newest is not None and event.version.epoch != past.newest.epoch:
                yield f"{event.version} is committed, but epoch {past.newest.epoch} is the newest"


def p3(past: Past, event: history.Event) -> Iterator[str]:
    """Generations rise over all epochs of a deployment, so none is used twice."""
    if isinstance(event, history.Offered) and event.version.generation <= past.highest:
        yield f"{event.version} is offered, but generation {past.highest} was used before"


def p4(past: Past, event: history.Event) -> Iterator[str]:
    """At most one switch is open: offered, then committed, then applied by all."""
    match event:
        case history.Offered() if past.switch is not None:
            open_since = f"{past.switch.version} is open since line {past.switch.line}"
            yield f"{event.version} is offered while the switch to {open_since}"
        case history.Committed():
            yield from _commits(past, event)
        case history.Applied() if not past.is_open(event.version, committed=True):
            yield f"{event.version} is applied, but is not an open switch that is committed"
        case history.Applied():
            yield from _flipped_by_all(past, event)


def _follows(past: Past, event: history.EpochOpened) -> Iterator[str]:
    """Epochs are numbered in sequence, and no group has two. The first may have any number."""
    if past.newest is not None and event.epoch != past.newest.epoch + 1:
        yield f"epoch {event.epoch} follows epoch {past.newest.epoch}"
    if event.group in past.groups:
        earlier = past.groups[event.group]
        yield f"group {event.group!r} opens epoch {event.epoch}, but has had epoch {earlier}"


def _owners(event: history.EpochOpened) -> Iterator[str]:
    owner: dict[int, str] = {}
    for worker, member in event.members.items():
        for gpu in member.gpus:
            if gpu in owner:
                yield f"epoch {event.epoch}: GPU {gpu} is owned by {owner[gpu]!r} and {worker!r}"
            owner[gpu] = worker
    if not event.members:
        yield f"epoch {event.epoch} has no members"
    if event.placement is None:
        return
    expected = set(range(event.placement.num_gpus))
    for gpu in sorted(expected - owner.keys()):
        yield f"epoch {event.epoch}: no member owns GPU {gpu}"
    for gpu in sorted(owner.keys() - expected):
        yield f"epoch {event.epoch}: {owner[gpu]!r} owns GPU {gpu} of only {len(expected)} GPUs"


def _belongs(past: Past, event: history.InForce | history.Flipped) -> Iterator[str]:
    epoch = past.epochs.get(event.version.epoch)
    if epoch is None:
        yield f"{event.process} serves with {event.version}, but its epoch was never opened"
    elif event.process not in epoch.processes:
        yield f"{event.process} serves with {event.version}, but is not a member of its epoch"
    elif isinstance(event, history.InForce) and event.group != epoch.group:
        yield (
            f"{event.process} serves with {event.version} in group {event.group!r}, "
            f"but the epoch belongs to group {epoch.group!r}"
        )


def _commits(past: Past, event: history.Committed) -> Iterator[str]:
    version = event.version
    if past.is_open(version, committed=False):
        return
    if version not in past.offered:
        yield f"{version} is committed, but was never offered"
    elif version in past.committed:
        yield f"{version} is committed, but was committed before in line {past.committed[version]}"
    elif past.switch is not None:
        yield f"{version} is committed while the switch to {past.switch.version} is open"
    # Otherwise an abort or a new epoch has closed the switch, which I4 and P2 report.


def _flipped_by_all(past: Past, event: history.Applied) -> Iterator[str]:
    """Workers that have written no line are not judged: see the docstring of the package."""
    for process in past.epochs[event.version.epoch].processes:
        if process.worker in past.speaking and (event.version, process) not in past.flipped:
            yield f"{event.version} is applied, but {process} has not flipped to it"
