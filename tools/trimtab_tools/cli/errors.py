"""Why a command cannot go on, beside what a call raises.

CommandError      what was asked for cannot be done: exit code 1
└── UsageError    the command line contradicts itself: exit code 2
"""


class CommandError(Exception):
    """What was asked for cannot be done. The message says why."""


class UsageError(CommandError):
    """The command line contradicts itself, or lacks something."""
