"""The exceptions of the commands, beside those of the client.

CommandError      the command has failed: exit code 1
└── UsageError    the command line is wrong: exit code 2
"""


class CommandError(Exception):
    """The command has failed. The message says why."""


class UsageError(CommandError):
    """The command line contradicts itself, or lacks an option."""
