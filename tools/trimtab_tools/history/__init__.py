"""Checks the record of a run: whether the invariants of PROTOCOL.md held throughout.

    from trimtab_tools.history import check_history, read_history

    with open("history.jsonl", "rb") as lines:
        report = check_history(read_history(lines), complete=True)
    for violation in report.violations:
        print(violation)

One function judges each rule and has its name: `invariants.i1` to `i8` and `liveness`, and
`rules.p1` to `p4`.

| code | what it holds events to |
|---|---|
| I1 | the versions in force at a worker never fall |
| I2 | a version has one digest, which is that of its placement |
| I3 | a flip, and a Commit that is sent, come after the commit |
| I4 | a commit comes after Prepared by all members, and there is no abort before or after it |
| I5 | all ranks flip at one step |
| I6 | an offer is on what was applied last in the newest epoch |
| I7 | what was added and what was missed sum up to what was counted |
| I8 | every expert has a slot in each layer |
| liveness | at the end no switch is open, and all members are at the version applied last |
| P1 | terms rise |
| P2 | epochs follow each other, each with a new group, and members that own each GPU once |
| P3 | generations rise, over all epochs of a deployment |
| P4 | one switch at a time: offered, committed, applied by all |

Only what stands in a history is known:

- It has to begin with the deployment, or with an epoch.
- It may be the server's alone. A worker is held to what it should have written itself (the flip
  before `applied`, and liveness) only once it has written any line, in whichever incarnation.
- A server that restarts has to write `restored` for each worker whose reports it goes on
  taking, also where its baseline is 0.
- A line with `"again": true` counts where the server died before it could write the first of its
  kind. Elsewhere it is held to I2 only.
- Lines of other kinds, such as `ignored`, are counted and not judged.
"""

from trimtab_protocol.history import Event
from trimtab_tools.history.check import Report, Violation, check_history
from trimtab_tools.history.read import read_history

__all__ = ["Event", "Report", "Violation", "check_history", "read_history"]
