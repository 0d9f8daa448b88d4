"""The collective of a group: all members get its result, or all hear that there is none."""

from __future__ import annotations

from collections.abc import Sequence

from trimtab_tools.simulate.errors import FleetError
from trimtab_tools.simulate.messages import GroupBroken, Contribution, Result

Answers = list[tuple[int, Result | GroupBroken]]


class Group:
    """Members that take part in one collective after another. Pure.

    A result is made at one moment and goes to all. So members that outlive the group have
    all got the same results, and stand before the same collective: at the same step, and
    with the same version in force.

    Args:
        name: of the group.
        members: their numbers, in the order of the parts that they bring.

    Attributes:
        name: of the group.
        members: the same.
        reason: why it is broken; None: it is not.
    """

    def __init__(self, name: str, members: Sequence[int]) -> None:
        self.name = name
        self.members = tuple(members)
        self.reason: str | None = None
        self._brought: dict[int, Contribution] = {}

    def brought(self, member: int, brought: Contribution) -> Answers:
        """A member has come to a collective; whom to answer, and what.

        Raises:
            FleetError: it is none of this group, or members are not at the same collective:
                a mistake of theirs.
        """
        if member not in self.members:
            raise FleetError(f"rank {member} came to a collective of a group that it is not in")
        if self.reason is not None:
            return [(member, GroupBroken(self.reason))]
        self._brought[member] = brought
        if len(self._brought) < len(self.members):
            return []
        collectives = {(each.step, each.what) for each in self._brought.values()}
        if len(collectives) > 1:
            seen = {n: (self._brought[n].step, self._brought[n].what) for n in self.members}
            raise FleetError(f"the ranks are at different collectives (step, which): {seen}")
        parts = [self._brought[n].parts for n in self.members]
        self._brought = {}
        return [(n, Result([each[i] for each in parts])) for i, n in enumerate(self.members)]

    def break_up(self, reason: str) -> Answers:
        """There will be no results any more; whom to tell now. Others are told as they come."""
        if self.reason is not None:
            return []
        self.reason = reason
        waiting, self._brought = self._brought, {}
        return [(n, GroupBroken(reason)) for n in waiting]
