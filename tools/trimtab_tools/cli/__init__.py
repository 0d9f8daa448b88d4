"""The `trimtab` command: placements, status, deployments and checks, for people and scripts."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from trimtab_client.channel import DEFAULT_TARGET
from trimtab_client.exceptions import TrimtabError
from trimtab_tools import __version__
from trimtab_tools.cli import (
    check_engine,
    check_history,
    deployments,
    history,
    pause,
    place,
    resume,
    simulate,
    status,
    trigger,
    watch,
)
from trimtab_tools.cli.errors import CommandError, UsageError

SERVER_VARIABLE = "TRIMTAB_SERVER"

_COMMANDS = (
    *(place, status, deployments, watch, history, trigger, pause, resume),
    *(check_history, check_engine, simulate),
)
"""The commands, in the order of `--help`."""

_DESCRIPTION = """\
Places the experts of Mixture-of-Experts models on GPUs so that all GPUs carry about the
same load, and operates and tests the server that does so.
"""

_EPILOG = f"""\
exit codes:
  0  success (status: the server is SERVING)
  1  failure; standard error says why (check-history: rules were violated; check-engine:
     cases failed)
  2  the command line is wrong (check-history: or the file; check-engine: or the factory)

environment:
  {SERVER_VARIABLE}  address of the server if --server is not given
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code.

    Args:
        argv: the arguments; None for those of the process.
    """
    parser = _parser(os.environ.get(SERVER_VARIABLE, DEFAULT_TARGET))
    words = sys.argv[1:] if argv is None else argv
    arguments = parser.parse_args(deployments.with_default_command(words))
    try:
        code: int = arguments.run(arguments)
    except UsageError as error:
        arguments.parser.error(str(error))
    except (CommandError, TrimtabError, OSError) as error:
        sys.stderr.write(f"trimtab: {error}\n")
        return 1
    return code


def _parser(server: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="trimtab",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"trimtab {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in _COMMANDS:
        subparser = command.add_to(commands, server)
        subparser.set_defaults(run=command.run, parser=subparser)
    return parser
