"""Checks the history of a run: did the invariants of PROTOCOL.md hold at every line?

    from trimtab_tools.history import check_history, read_history

    with open("history.jsonl", "rb") as lines:
        report = check_history(read_history(lines), complete=True)
    for violation in report.violations:
        print(violation)

Each rule is one function that has its name: `invariants.i1` to `i8` and `liveness`, and `rules.p1`
to `p4`.

| code | rule |
|---|---|
| I1 | the versions in force at a worker never fall |
| I2 | a version has one digest, which is that of its placement |
| I3 | a flip, and a Commit that is sent, come after the commit |
| I4 | a commit comes after Prepared by all members, and there is no abort before or after it |
| I5 | all ranks flip at the same step |
| I6 | the base of an offer is the version applied last in the newest epoch |
| I7 | the tokens added and the tokens missed sum to the tokens counted |
| I8 | every expert has a slot in each layer |
| liveness | at the end no switch is open, and all members serve with the version applied last |
| P1 | terms rise |
| P2 | epochs follow each other, each with a new group whose members own each GPU once |
| P3 | generations rise, over all epochs of a deployment |
| P4 | one switch at a time: offered, committed, applied by all |

The checker knows only the history:

- The history has to start at the beginning of the deployment, or of an epoch.
- It may contain the lines of the server alone. The lines that a worker should have written (its
  flip before `applied`, and liveness) are required only if the worker has written any line, in
  any incarnation.
- A server that restarts has to write `restored` for each worker whose reports it continues to
  accept, even if the baseline is 0.
- A line with `"again": true` counts if the server died before it wrote the first such line.
  Otherwise only I2 is checked.
- Lines of other kinds, such as `ignored`, are counted but not judged.
"""

from trimtab_protocol.history import Event
from trimtab_tools.history.check import Report, Violation, check_history
from trimtab_tools.history.read import read_history

__all__ = ["Event", "Report", "Violation", "check_history", "read_history"]
