"""The state that follows from the history of a deployment up to a line. Rules read it."""

from __future__ import annotations

from typing import NamedTuple

from trimtab_protocol import history
from trimtab_protocol.version import Version

Digested = (
    history.EpochOpened
    | history.Offered
    | history.Prepared
    | history.Committed
    | history.Applied
    | history.InForce
    | history.Flipped
)
"""Events that say which digest a version has."""

Placed = history.EpochOpened | history.Offered
"""Events that say which placement a version has, unless the history leaves it out."""


class Switch(NamedTuple):
    """The open switch, the line of its offer, and whether it is committed."""

    version: Version
    line: int
    committed: bool


class Past:
    """The past of one deployment. Only `add` changes it.

    Attributes:
        newest: the epoch opened last; None before the first.
        epochs: all epochs, by number.
        groups: the epoch of each group.
        applied: the version applied last in the newest epoch.
        highest: the highest generation offered in any epoch.
        switch: the open switch; None if no switch is open.
        offered: the offered versions, with their lines.
        committed: the committed versions, with their lines.
        aborted: the versions whose abort has begun or ended, with their lines.
        prepared: the versions, digests and processes of all `prepared` lines.
        digests: the first event that named the digest of each version.
        placed: the versions whose placement is recorded.
        in_force: the last event of each process about the version that it serves with.
        flips: the first flip to each version.
        flipped: the versions and processes of all flips.
        speaking: the workers that have written lines.
        counted: the tokens of each process that are accounted for.
        seqs: the number of the last report of each process.
    """

    def __init__(self) -> None:
        self.newest: history.EpochOpened | None = None
        self.epochs: dict[int, history.EpochOpened] = {}
        self.groups: dict[str, int] = {}
        self.applied: Version | None = None
        self.highest = 0
        self.switch: Switch | None = None
        self.offered: dict[Version, int] = {}
        self.committed: dict[Version, int] = {}
        self.aborted: dict[Version, int] = {}
        self.prepared: set[tuple[Version, bytes, history.Process]] = set()
        self.digests: dict[Version, Digested] = {}
        self.placed: set[Version] = set()
        self.in_force: dict[history.Process, history.InForce | history.Flipped] = {}
        self.flips: dict[Version, history.Flipped] = {}
        self.flipped: set[tuple[Version, history.Process]] = set()
        self.speaking: set[str] = set()
        self.counted: dict[history.Process, int] = {}
        self.seqs: dict[history.Process, int] = {}

    def has(self, event: history.Event) -> bool:
        """Whether a durable event is in the history already."""
        match event:
            case history.EpochOpened():
                return event.epoch in self.epochs
            case history.Offered():
                return event.version in self.offered
            case history.Committed():
                return event.version in self.committed
            case history.Aborted():
                return self.switch is None or self.switch.version != event.version
            case history.Applied():
                return self.applied == event.version
            case _:
                return False

    def is_open(self, version: Version, *, committed: bool) -> bool:
        """Whether this version is the open switch, and is committed or not as given."""
        switch = self.switch
        return switch is not None and (switch.version, switch.committed) == (version, committed)

    def is_newest(self, epoch: int) -> bool:
        """Whether this is the epoch that was opened last."""
        return self.newest is not None and self.newest.epoch == epoch

    def add(self, event: history.Event) -> None:
        """Add the next event, whether it breaks a rule or not."""
        if isinstance(event, Digested):
            self.digests.setdefault(event.version, event)
        if isinstance(event, Placed) and event.placement is not None:
            self.placed.add(event.version)
        match event:
            case history.EpochOpened():
                self._open(event)
            case history.Offered():
                self._offer(event)
            case history.Prepared():
                self.prepared.add((event.version, event.digest, event.process))
            case history.Committed():
                self._commit(event)
            case history.Aborting() | history.Aborted():
                self._abort(event)
            case history.Applied():
                self._apply(event)
            case history.InForce() | history.Flipped():
                self._speak(event)
            case history.Reported() | history.Restored():
                self._count(event)

    def _open(self, event: history.EpochOpened) -> None:
        self.newest = self.epochs[event.epoch] = event
        self.groups[event.group] = event.epoch
        self.applied, self.switch = event.version, None

    def _offer(self, event: history.Offered) -> None:
        self.offered[event.version] = event.line
        self.highest = max(self.highest, event.version.generation)
        if self.is_newest(event.version.epoch):
            self.switch = Switch(event.version, event.line, committed=False)

    def _commit(self, event: history.Committed) -> None:
        self.committed[event.version] = event.line
        if self.is_newest(event.version.epoch):
            line = self.offered.get(event.version, event.line)
            self.switch = Switch(event.version, line, committed=True)

    def _abort(self, event: history.Aborting | history.Aborted) -> None:
        self.aborted.setdefault(event.version, event.line)
        # A committed switch cannot be aborted. I4 has reported it, and the switch stays open.
        if isinstance(event, history.Aborted) and self.is_open(event.version, committed=False):
            self.switch = None

    def _apply(self, event: history.Applied) -> None:
        if self.is_newest(event.version.epoch):
            self.applied = event.version
        if self.switch is not None and self.switch.version == event.version:
            self.switch = None

    def _speak(self, event: history.InForce | history.Flipped) -> None:
        self.speaking.add(event.process.worker)
        self.in_force[event.process] = event
        if isinstance(event, history.Flipped):
            self.flips.setdefault(event.version, event)
            self.flipped.add((event.version, event.process))

    def _count(self, event: history.Reported | history.Restored) -> None:
        self.counted[event.process] = event.counts
        if isinstance(event, history.Reported):
            self.seqs[event.process] = event.seq
        else:
            # The reports since the saved baseline may come again.
            self.seqs.pop(event.process, None)
