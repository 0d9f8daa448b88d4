"""Kills the processes that a killed fleet has left behind. A script: it imports no package.

It reads lines from its standard input: `+PID` for a process that has started, `-PID` for one
that has ended. When the input ends, the fleet that wrote to it is gone: the script kills all
processes that are left, also stopped ones, and removes the folder that is its argument.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys


def main() -> None:
    """Read to the end, and clean up."""
    running = set()
    for line in sys.stdin:
        pid = int(line[1:])
        if line[0] == "+":
            running.add(pid)
        else:
            running.discard(pid)
    for pid in running:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    shutil.rmtree(sys.argv[1], ignore_errors=True)


if __name__ == "__main__":
    main()
