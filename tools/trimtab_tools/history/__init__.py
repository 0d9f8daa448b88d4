"""Checks the history of a run: did the invariants of PROTOCOL.md hold at every line?

    from trimtab_tools.history import check_history, read_history

    with open("history.jsonl", "rb") as lines:
        report = check_history(read_history(lines), complete=True)
    for violation in report.violations:
        print(violation)

Each rule is one function that has its name, and says in its first line what has to hold:
`invariants.i1` to `i8` and `liveness`, and `rules.p1` to `p4`.

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
