"""The collective of a group: all members get its result, or all are told that there is none."""

from __future__ import annotations

from collections.abc import Sequence

from trimtab_tools.simulate.errors import FleetError
from trimtab_tools.simulate.messages import Contribution, GroupBroken, Result

Answers = list[tuple[int, Result | GroupBroken]]
"""The messages to send, each with the member that it is for."""


class Group:
    """Members that take part in one collective after another. Pure.

    A result is made at one moment and goes to all. So the members that outlive the group have
    all got the same results, and stand before the same collective: at the same step, and
    with the same version in force.

    Args:
        name: of the group.
        members: their numbers, in the order of the parts that they contribute.

    Attributes:
        reason: why the group is broken; None if it is not.
    """

    def __init__(self, name: str, members: Sequence[int]) -> None:
        self.name = name
        self.members = tuple(members)
        self.reason: str | None = None
        self._contributions: dict[int, Contribution] = {}

    def contribute(self, member: int, contribution: Contribution) -> Answers:
        """Take what a member brings to a collective; returns the answers to send now.

        Raises:
            FleetError: the member does not belong to this group, or the members are at different
                collectives. Either is a fault of theirs.
        """
        if member not in self.members:
            raise FleetError(f"rank {member} came to a collective of a group that it is not in")
        if self.reason is not None:
            return [(member, GroupBroken(self.reason))]
        self._contributions[member] = contribution
        if len(self._contributions) < len(self.members):
            return []
        given = [self._contributions[n] for n in self.members]
        if len({(each.step, each.collective) for each in given}) > 1:
            seen = {
                n: (each.step, each.collective) for n, each in zip(self.members, given, strict=True)
            }
            raise FleetError(f"the ranks are at different collectives (step, which): {seen}")
        self._contributions = {}
        return [(n, Result([each.parts[i] for each in given])) for i, n in enumerate(self.members)]

    def break_up(self, reason: str) -> Answers:
        """End the group; returns the answers to members that wait. Others get theirs later."""
        if self.reason is not None:
            return []
        self.reason = reason
        waiting, self._contributions = self._contributions, {}
        return [(n, GroupBroken(reason)) for n in waiting]
