"""Violations to plant: small changes of the clean history, each with what is to be found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.tools.history.runs import Line, find, index_of, name_of, recorded

Edit = Callable[[list[Line]], Line]
"""Changes a history, and returns the line that is to be blamed if nothing else is said."""


class Plant:
    """A violation.

    Args:
        told: the rule of each violation that is found, and part of what one of them says, which
            blames a line.
        edits: the changes.
        blames: the name of that line; by default it is the one that was edited last.
    """

    def __init__(self, told: str, *edits: Edit, blames: str | None = None) -> None:
        codes, self.saying = told.split(": ", 1)
        self.told, self.codes = told, codes.split()
        self._edits, self._blames = edits, blames

    def into(self, lines: list[Line]) -> Line:
        """Change these lines. Returns the one that is to be blamed."""
        edited = [edit(lines) for edit in self._edits]
        return edited[-1] if self._blames is None else find(lines, self._blames)


def edit(name: str, *keys: str, **values: Any) -> Edit:
    """Give a line, or what it has under these keys, other values."""

    def apply(lines: list[Line]) -> Line:
        line = changed = find(lines, name)
        for key in keys:
            changed = changed[key]
        changed.update(values)
        return line

    return apply


def edit_all(key: str, old: Any, new: Any) -> Edit:
    """Give every line another value that has this one. The first of them is to be blamed."""

    def apply(lines: list[Line]) -> Line:
        having = [line for line in lines if line.get(key) == old]
        for line in having:
            line[key] = new
        return having[0]

    return apply


def add(name: str, *, after: str, **values: Any) -> Edit:
    """Repeat a line with other values."""

    def apply(lines: list[Line]) -> Line:
        line = find(lines, name) | values
        lines.insert(index_of(lines, after) + 1, line)
        return line

    return apply


def move(name: str, *, after: str) -> Edit:
    def apply(lines: list[Line]) -> Line:
        line = lines.pop(index_of(lines, name))
        lines.insert(index_of(lines, after) + 1, line)
        return line

    return apply


def drop(*names: str) -> Edit:
    """Drop all lines whose names begin so. The first of them is returned."""

    def apply(lines: list[Line]) -> Line:
        first = find(lines, names[0])
        lines[:] = [line for line in lines if not name_of(line).startswith(names)]
        return first

    return apply


def place(version: list[int], *phy2log: list[int]) -> Edit:
    """Replace the placement of a version everywhere. The line that has it is to be blamed."""

    def apply(lines: list[Line]) -> Line:
        placed = recorded([*phy2log])
        own = [line for line in lines if line.get("version", [line.get("epoch"), 0]) == version]
        for line in own:
            line.update({key: placed[key] for key in line.keys() & placed.keys()})
        return next(line for line in own if "placement" in line)

    return apply


_NONE = "0" * 64
_NOT_OPEN = "is applied, but is not an open switch that is committed"

PLANTS = [
    Plant(
        "I1: goes back to 1.1 from 1.4",
        add("flipped 1.1 w0", after="flipped 1.4 w0", kind="in_force", group="group 1"),
    ),
    Plant(
        "I1: 'w0' (incarnation 1) goes back to 1.4 from 2.0",
        add("flipped 1.4 w0", after="in_force 2.0 w0"),
    ),
    Plant("I2: 1.1 has digest 000000000000, but ", edit("flipped 1.1 w1", digest=_NONE)),
    Plant("I2: 2.0 has digest 000000000000, but ", edit("in_force 2.0 w1", digest=_NONE)),
    Plant("I2: but that of its placement is", edit("offered 1.1", "placement", gpus=1)),
    Plant(
        "I2: but that of its placement is",
        edit("epoch 1", placement=recorded([[0, 1, 2, 0], [2, 2, 1, 0]])["placement"]),
    ),
    Plant(
        "I3: Commit of 1.1 is sent to 'w0' before it is durable",
        move("commit_sent 1.1", after="prepared 1.1 w1"),
    ),
    Plant(
        "I3: 'w0' (incarnation 1) flips to 1.1, which is not committed",
        move("flipped 1.1 w0", after="prepared 1.1 w1"),
    ),
    Plant(
        "I3: 'w0' (incarnation 1) serves with 1.2, which is not committed",
        add("prepared 1.2 w0", after="aborted 1.2", kind="in_force", group="group 1"),
    ),
    Plant(
        "I4: which 'w1' (incarnation 1) has not prepared",
        drop("prepared 1.1 w1"),
        blames="committed 1.1",
    ),
    Plant(
        "I4: which 'w1' (incarnation 1) has not prepared",
        move("prepared 1.1 w1", after="committed 1.1"),
        blames="committed 1.1",
    ),
    Plant(
        "I4: which 'w1' (incarnation 2) has not prepared",
        edit("prepared 2.6 w1", incarnation=1),
        blames="committed 2.6",
    ),
    Plant(
        "I2 I4: which 'w0' (incarnation 1) has not prepared",
        edit("prepared 1.1 w0", digest=_NONE),
        blames="committed 1.1",
    ),
    Plant(
        "I4: 1.1 is committed, but line",
        add("aborting 1.2", version=[1, 1], after="prepared 1.1"),
        blames="committed 1.1",
    ),
    Plant(
        "I4: 1.1 is committed, but line",
        add("aborted 1.2", version=[1, 1], after="prepared 1.1 w1"),
        blames="committed 1.1",
    ),
    Plant(
        "I4: 1.1 is aborted, but line", add("aborting 1.2", version=[1, 1], after="committed 1.1")
    ),
    Plant(
        "I4: 1.1 is aborted, but line", add("aborted 1.2", version=[1, 1], after="committed 1.1")
    ),
    Plant("I4: 1.1 is aborted, but line", add("aborted 1.2", version=[1, 1], after="applied 1.1")),
    # A restarted server has lost the commit.
    Plant(
        "I4: 1.4 is aborted, but line",
        add("aborted", version=[1, 4], again=True, after="committed 1.4"),
    ),
    Plant(
        "I4 P4: 1.1 is committed, but its epoch was never opened",
        add("committed 1.1", after="started"),
    ),
    Plant(
        "I5: flips to 1.4 at step 17, but 'w0' (incarnation 1) at step 16",
        edit("flipped 1.4 w1", step=17),
    ),
    Plant("I6: 1.4 is based on 1.0, but 1.1 was applied last", edit("offered 1.4", base=[1, 0])),
    Plant("I6: 1.4 is based on 1.3, but 1.1 was applied last", edit("offered 1.4", base=[1, 3])),
    Plant("I6: 2.6 is based on 1.4, but 2.0 was applied last", edit("offered 2.6", base=[1, 4])),
    Plant(
        "I7: counts 12, but 7 before + difference 4 + gap 2 are 13",
        edit("report 12 w1", difference=4),
    ),
    Plant("I7: counts 12, but 7 before + difference 3 + gap 0 are 10", edit("report 12 w1", gap=0)),
    Plant(
        "I7: report 2 of 'w1' (incarnation 1) has a gap of -2",
        edit("report 12 w1", difference=7, gap=-2),
    ),
    Plant(
        "I7: report 2 of 'w1' (incarnation 1) has a difference of -1",
        edit("report 12 w1", difference=-1, gap=6),
    ),
    Plant("I7: is accepted after report 1", edit("report 12 w1", seq=1)),
    Plant(
        "I7: counts 13, but 10 before + difference 5 + gap 2 are 17",
        drop("restored"),
        # Without it, that report would come again as well: let that be.
        edit("report 13", seq=2),
    ),
    Plant(
        "I7: counts 13, but 5 before + difference 5 + gap 2 are 12",
        edit("restored", counts=5),
        blames="report 13",
    ),
    Plant("I8: 1.1: layer 1: expert 2 has no slot", place([1, 1], [0, 1, 2, 0], [0, 1, 1, 0])),
    Plant("I8: 2.0: layer 0: expert 0 has no slot", place([2, 0], [1, 1, 2, 2], [2, 0, 1, 0])),
    Plant("I8: 1.4: layer 0: expert 1 has no slot", place([1, 4], [0, 0, 2, 2], [2, 0, 1, 0])),
    Plant(
        "I8: 1.1: layer 1, slot 3: 3 is not an expert in [0, 3)",
        place([1, 1], [0, 1, 2, 0], [0, 1, 2, 3]),
    ),
    Plant(
        "I8: 1.1: layer 0, slot 0: -1 is not an expert in [0, 3)",
        place([1, 1], [-1, 0, 1, 2], [0, 1, 2, 0]),
    ),
    Plant("P1: the server starts in term 1 after term 1 in line 1", edit("started 2", term=1)),
    Plant("P1: the server starts in term 0 after term 1 in line 1", edit("started 2", term=0)),
    Plant(
        "P2: epoch 3 follows epoch 1",
        edit_all("version", [2, 0], [3, 0]),
        edit_all("version", [2, 6], [3, 6]),
        edit_all("base", [2, 0], [3, 0]),
        edit("epoch 2", epoch=3),
    ),
    Plant(
        "P2: group 'group 1' opens epoch 2, but has had epoch 1",
        edit_all("group", "group 2", "group 1"),
    ),
    Plant(
        "P2: epoch 2: GPU 0 is owned by 'w0' and 'w1'",
        edit("epoch 2", "members", "w1", gpus=[0, 1]),
    ),
    Plant(
        "P2: epoch 2: GPU 1 is owned by 'w0' and 'w1'",
        edit("epoch 2", "members", "w0", gpus=[1]),
        edit("epoch 2", placement=None),
    ),
    Plant("P2: epoch 2: no member owns GPU 1", edit("epoch 2", "members", "w1", gpus=[])),
    Plant(
        "P2: epoch 2: 'w1' owns GPU 2 of only 2 GPUs", edit("epoch 2", "members", "w1", gpus=[1, 2])
    ),
    Plant(
        "P2: epoch 3 has no members",
        add("epoch 2", after="applied 2.6", epoch=3, group="group 3", members={}, placement=None),
    ),
    Plant(
        "P2: 'w2' (incarnation 1) serves with 1.0, but is not a member of its epoch",
        add("in_force 1.0 w0", after="in_force 1.0 w0", worker="w2"),
    ),
    Plant(
        "P2: 'w1' (incarnation 1) serves with 2.6, but is not a member of its epoch",
        add("flipped 2.6 w1", after="flipped 2.6 w1", incarnation=1),
    ),
    Plant(
        "P2: in group 'group 1', but the epoch belongs to group 'group 2'",
        edit("in_force 2.0 w0", group="group 1"),
    ),
    Plant(
        "P2: 'w0' (incarnation 1) serves with 2.0, but its epoch was never opened",
        move("in_force 2.0 w0", after="offered 1.5"),
    ),
    Plant(
        "P2: 1.5 is committed, but epoch 2 is the newest",
        add("offered 1.5", kind="committed", after="epoch 2"),
    ),
    Plant(
        "P2: 1.4 is committed, but epoch 2 is the newest", move("commit_sent 1.4", after="epoch 2")
    ),
    Plant(
        "P3: 1.2 is offered, but generation 2 was used before",
        add("aborted 1.2", after="aborted 1.2"),
        add("offered 1.2", after="aborted 1.2"),
    ),
    Plant(
        "P3: 2.1 is offered, but generation 5 was used before", edit_all("version", [2, 6], [2, 1])
    ),
    Plant(
        "P3: 2.0 is offered, but generation 5 was used before",
        add("aborted", version=[2, 0], after="epoch 2"),
        add("epoch 2", kind="offered", version=[2, 0], base=[2, 0], after="epoch 2"),
    ),
    Plant(
        "I6 P3: 1.6 is offered in epoch 1, but the newest is 2",
        add("offered 1.5", version=[1, 6], after="in_force 2.0"),
    ),
    Plant(
        "I6 P3: 1.1 is offered in epoch 1, but there is none yet",
        add("offered 1.1", after="started"),
    ),
    Plant(
        "P4: 1.3 is offered while the switch to 1.2 is open since line",
        drop("aborted 1.2"),
        blames="offered 1.3",
    ),
    Plant(
        "P4 P4: 1.2 is offered while the switch to 1.1 is open since line",
        # Its base is right by then, and it stands just before the line that closes the switch.
        move("offered 1.2", after="flipped 1.1 w1"),
        drop("applied 1.1", "aborting 1.2", "aborted 1.2"),
        edit_all("base", [1, 1], [1, 0]),
    ),
    Plant(
        "P4: 1.1 is committed, but was never offered", drop("offered 1.1"), blames="committed 1.1"
    ),
    Plant(
        "P4: 1.1 is committed, but was committed before in line",
        add("committed 1.1", after="committed 1.1"),
    ),
    Plant(
        "I4 I4 P4 P4: 1.2 is committed while the switch to 1.4 is open",
        add("offered 1.2", kind="committed", after="offered 1.4"),
    ),
    Plant(
        f"P4 liveness liveness: 2.6 {_NOT_OPEN}",
        drop("committed 2.6", "commit_sent 2.6", "flipped 2.6"),
        blames="applied 2.6",
    ),
    Plant(f"P4: 1.1 {_NOT_OPEN}", add("applied 1.1", after="applied 1.1")),
    Plant(f"P4: 1.1 {_NOT_OPEN}", add("applied 1.1", after="commit_sent 1.4")),
    Plant(f"P4: 1.4 {_NOT_OPEN}", add("applied 1.4", after="in_force 2.0")),
    Plant(
        "P4: 1.4 is applied, but 'w1' (incarnation 1) has not flipped to it",
        move("flipped 1.4 w1", after="applied 1.4"),
        blames="applied 1.4",
    ),
    Plant(
        "P4 liveness: 2.6 is applied, but 'w1' (incarnation 2) has not flipped to it",
        drop("flipped 2.6 w1"),
        blames="applied 2.6",
    ),
]
