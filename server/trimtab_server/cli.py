"""The command `trimtab-server`."""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import uvloop

from trimtab_server import __version__
from trimtab_server.config import (
    FILE_VARIABLE,
    Option,
    ServerConfig,
    load_config,
    sections,
    to_toml,
    unknown_in,
)
from trimtab_server.domain.errors import InvalidArgumentError
from trimtab_server.logs import configure_logs
from trimtab_server.rpc.healthcheck import health_complaint
from trimtab_server.store import failpoints
from trimtab_server.store.errors import StoreError
from trimtab_server.store_commands import (
    BACKUP_DESCRIPTION,
    RESTORE_DESCRIPTION,
    back_up,
    put_back,
)

_Formatter = partial(argparse.RawDescriptionHelpFormatter, max_help_position=30, width=96)
_FAILPOINTS = "failpoints"
_UNHEALTHY = 1
_NOT_COMPILED = 1
_NOT_COPIED = 1
_USAGE_ERROR = 2

_DESCRIPTION = """\
Places the experts of Mixture-of-Experts models on GPUs, as a gRPC service.
"""

_EXAMPLES = """\
examples:
  trimtab-server serve                          on this machine, with the defaults
  trimtab-server serve --listen 0.0.0.0:50051 --device cuda:0
  trimtab-server serve --print-config > trimtab.toml
  trimtab-server serve --config trimtab.toml
  trimtab-server backup --config trimtab.toml backup.db

`trimtab-server serve --help` shows every setting.
"""

_SERVE_DESCRIPTION = f"""\
Serves until SIGTERM or SIGINT. After the first signal the server refuses new work and
finishes the work that it has begun; a second signal stops it at once.

Every setting has one name and three spellings: --queue-size as a flag,
TRIMTAB_QUEUE_SIZE in the environment, queue_size in the TOML file of --config
(or {FILE_VARIABLE}). Flags win over the environment, the environment over the file.
"""

_HEALTHCHECK_DESCRIPTION = """\
Asks the server that runs on this machine with the same configuration whether it
serves. Exits with 0 if it does, else with 1 and the reason.

With --liveness a store that fails is no reason: a restart cannot mend it, and would take the
solver away, which needs no store. Use it where a failed check restarts the server.

With TLS, the check trusts only the certificate in tls_cert. With tls_client_ca, it also
presents that certificate, which those authorities must then have signed.
"""


_WARM_DESCRIPTION = """\
Compiles the kernels for this machine and exits. They are kept in the user's cache folder,
or below NUMBA_CACHE_DIR and TRITON_CACHE_DIR, so that servers start at once: useful when an
image is built. A server that finds no kernels compiles them before it serves.

A GPU's kernels depend on the sizes of a model, and are compiled at the first request of a
size, while the CPU answers. --shape compiles them here, and can be given once for each
size. It needs the GPU. A shape is written as LAYERSxEXPERTS:SLOTS/GPUS, followed by
:NODES/GROUPS if router groups stay on their nodes:

  trimtab-server warm --device cuda --shape 58x256:288/32 --shape 58x256:288/32:4/8
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. `serve` ends the process once the server has ended.

    Returns:
        The exit code: 0; 1 if a health check fails, kernels could not be compiled or a store could
        not be copied; 2 if the configuration is wrong.
    """
    given = vars(_parser().parse_args(arguments))
    command, shapes = given.pop("command"), given.pop("shapes", [])
    file, print_only = given.pop("config"), given.pop("print_config", False)
    own = {name: given.pop(name) for name in _OWN_ARGUMENTS if name in given}
    try:
        failpoints.configure(given.pop(_FAILPOINTS, ""))
        config = load_config(given, os.environ, file)
        if print_only:
            print(to_toml(config), end="")
            return 0
        return _warm(config, shapes) if command == "warm" else _COMMANDS[command](config, **own)
    except StoreError as error:
        print(f"trimtab-server: {error}", file=sys.stderr)
        return _NOT_COPIED
    except InvalidArgumentError as error:
        for violation in error.violations:
            print(f"trimtab-server: {violation.field}: {violation.description}", file=sys.stderr)
        return _UNHEALTHY if command == "healthcheck" else _USAGE_ERROR


def _check_health(config: ServerConfig, *, liveness: bool) -> int:
    complaint = health_complaint(config.rpc, needs_store=not liveness)
    if complaint is None:
        return 0
    print(f"trimtab-server: not serving: {complaint}", file=sys.stderr)
    return _UNHEALTHY


def _serve(config: ServerConfig) -> int:
    # A full garbage collection stops the event loop, and would look at the 200,000 objects of torch
    # each time, for 0.1 s. They live as long as the process, so they are exempt.
    gc.disable()
    # Imported here, since it loads torch, which takes time that other commands need not spend.
    from trimtab_server.app import serve

    gc.freeze()
    gc.enable()
    configure_logs(config.logs, os.environ)
    uvloop.run(serve(config, [each for each in unknown_in(os.environ) if not each.is_misspelt]))
    # All is closed. A normal exit would wait for a solver job that still runs and cannot be
    # stopped, and would take torch and its 200,000 objects apart.
    sys.stderr.flush()
    os._exit(0)


def _warm(config: ServerConfig, shapes: Sequence[str]) -> int:
    from trimtab_server.app import warm
    from trimtab_server.warming import CannotWarmError, Shape

    configure_logs(config.logs, os.environ)
    try:
        uvloop.run(warm(config, [Shape.parse(text) for text in shapes]))
    except CannotWarmError as error:
        print(f"trimtab-server: not compiled: {error}", file=sys.stderr)
        return _NOT_COMPILED
    return 0


_COMMANDS: Mapping[str, Callable[..., int]] = {
    "serve": _serve,
    "healthcheck": _check_health,
    "backup": back_up,
    "restore": put_back,
}

_OWN_ARGUMENTS = ("liveness", "copy", "replace")
"""Arguments of these commands that are no settings."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="trimtab-server",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=_Formatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    serving = _add_command(
        commands, "serve", "run the server", _SERVE_DESCRIPTION, "[--print-config] "
    )
    serving.add_argument(
        "--print-config",
        action="store_true",
        default=False,
        help="print the configuration in effect as TOML, and exit",
    )
    checks = "exit with 0 if the server of this configuration serves, else with 1"
    checking = _add_command(
        commands, "healthcheck", checks, _HEALTHCHECK_DESCRIPTION, "[--liveness] "
    )
    checking.add_argument(
        "--liveness",
        action="store_true",
        default=False,
        help="ask for what a restart could mend: a store that fails is no reason to exit with 1",
    )
    compiles = "compile the kernels before the first start"
    warming = _add_command(commands, "warm", compiles, _WARM_DESCRIPTION, "[--shape SHAPE ...] ")
    warming.add_argument(
        "--shape",
        dest="shapes",
        action="append",
        metavar="LxE:R/G[:N/B]",
        help="also compile for models of this size; may be repeated",
    )
    # Not a setting: only tests of this project let a server die, or its store fail, at will.
    serving.add_argument(f"--{_FAILPOINTS}", help=argparse.SUPPRESS)
    copying = _add_copying(commands)
    for command in (serving, checking, warming, *copying):
        _add_settings(command)
    return parser


def _add_copying(commands: Any) -> Iterator[argparse.ArgumentParser]:
    about = "copy the store to a file, also while a server uses it"
    backing = _add_command(commands, "backup", about, BACKUP_DESCRIPTION, "[--replace] FILE ")
    backing.add_argument("copy", metavar="FILE", type=Path, help="the file to write")
    about = "put such a copy in the place of the store, while no server uses it"
    restoring = _add_command(commands, "restore", about, RESTORE_DESCRIPTION, "[--replace] FILE ")
    restoring.add_argument("copy", metavar="FILE", type=Path, help="a file made by backup")
    replaces = {
        backing: "replace FILE if it exists",
        restoring: "replace the store if it exists; it is kept under another name",
    }
    for command, about in replaces.items():
        command.add_argument("--replace", action="store_true", default=False, help=about)
        yield command


def _add_command(
    commands: Any, name: str, summary: str, description: str, own_flags: str = ""
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=description,
        formatter_class=_Formatter,
        usage=f"trimtab-server {name} [--config FILE] {own_flags}[setting ...]",
        argument_default=argparse.SUPPRESS,
    )
    return parser


def _add_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", metavar="FILE", type=Path, default=None, help="TOML file with settings"
    )
    for section in sections():
        group = parser.add_argument_group(section.title)
        for option in section.options:
            group.add_argument(option.flag, dest=option.name, **_flag_of(option))


def _flag_of(option: Option) -> dict[str, Any]:
    default = str(option.default)
    if isinstance(option.default, bool | None):
        default = default.lower()
    unit = f" {option.about.unit}" if isinstance(option.default, int | float) else ""
    help_text = f"{option.about.doc} [{default}{unit.rstrip()}; {option.env}]"
    if option.kind is bool:
        return {"action": argparse.BooleanOptionalAction, "help": help_text}
    metavar = f"{{{','.join(option.choices)}}}" if option.choices else option.about.unit.upper()
    return {"metavar": metavar or option.name.upper(), "help": help_text}
