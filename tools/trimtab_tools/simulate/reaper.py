"""Ends what a killed process has left behind. A script: it must not need the package.

It reads from its standard input, a line each: `+PID` (watch over it), `-PID` (it has ended).
When its input ends, the fleet that wrote to it is gone: whatever is left is killed, stopped
processes too, and the folder that is its argument is removed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys


def main() -> None:
    """Read to the end, and clean up."""
    watched = set()
    for line in sys.stdin:
        pid = int(line[1:])
        if line[0] == "+":
            watched.add(pid)
        else:
            watched.discard(pid)
    for pid in watched:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    shutil.rmtree(sys.argv[1], ignore_errors=True)


if __name__ == "__main__":
    main()
