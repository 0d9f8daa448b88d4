"""`trimtab deployments`: show, create, change, pin and delete deployments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trimtab_tools.cli.command import add_command
from trimtab_tools.cli.deployments import change, delete, placements, show

_NAME = "deployments"

_EPILOG = """\
examples:
  trimtab deployments
  trimtab deployments create prod --layers 58 --experts 256 --slots 288 --gpus 32 --mode shadow
  trimtab deployments update prod --mode active
  trimtab deployments get prod --json

Without a command, it lists all deployments. `trimtab deployments COMMAND --help` describes a
command.
"""


def add_to(commands: Any) -> None:
    """Add the command and its subcommands."""
    about = "Show, create, change, pin and delete deployments."
    parser = add_command(commands, _NAME, show.run_list, about, _EPILOG)
    subcommands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for family in (show, change, delete, placements):
        family.add_to(subcommands)


def with_default_command(words: Sequence[str]) -> list[str]:
    """The command line with `list` added if `trimtab deployments` has no command."""
    first, rest = words[:1], list(words[1:])
    lists = not rest or (rest[0].startswith("-") and rest[0] not in ("-h", "--help"))
    return [*first, *(["list"] if list(first) == [_NAME] and lists else []), *rest]
