"""The `trimtab` command: placements, status, deployments and checks, for people and scripts."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from trimtab_client.exceptions import TrimtabError
from trimtab_tools import __version__
from trimtab_tools.cli import (
    check_engine,
    check_history,
    decisions,
    deployments,
    history,
    pause,
    place,
    simulate,
    status,
    trigger,
    watch,
)
from trimtab_tools.cli.command import SERVER_VARIABLE
from trimtab_tools.cli.errors import CommandError, UsageError

_FAMILIES = (
    *(place, status, deployments, watch, history, decisions, trigger, pause),
    *(check_history, check_engine, simulate),
)
"""What adds the commands, in the order of `--help`."""

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
    words = sys.argv[1:] if argv is None else argv
    arguments = _parser().parse_args(deployments.with_default_command(words))
    try:
        code: int = arguments.run(arguments)
        sys.stdout.flush()
    except UsageError as error:
        arguments.parser.error(str(error))
    except BrokenPipeError:
        # Whoever read the output has had enough, such as `head`. Python would flush it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (CommandError, TrimtabError, OSError) as error:
        sys.stderr.write(f"trimtab: {error}\n")
        return 1
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="trimtab",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"trimtab {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for family in _FAMILIES:
        family.add_to(commands)
    return parser
