"""The server's configuration: one typed value, from defaults, file, environment and flags.

Each setting has one name with three spellings: `queue_size` in the TOML file,
`TRIMTAB_QUEUE_SIZE` in the environment and `--queue-size` as a flag. Flags win
over the environment, the environment over the file, the file over the defaults.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from trimtab_protocol.errors import Violation
from trimtab_server.domain.errors import InvalidArgumentError, invalid
from trimtab_server.engine.config import Limits, SessionConfig, SolverConfig
from trimtab_server.environment import PREFIX, UnknownVariable, unknown_variables
from trimtab_server.history.config import HistoryConfig
from trimtab_server.logs import LogConfig
from trimtab_server.metrics.config import MetricsConfig
from trimtab_server.rpc.config import RpcConfig
from trimtab_server.setting import KEY, Setting

FILE_VARIABLE = f"{PREFIX}CONFIG"


@dataclass(frozen=True)
class ServerConfig:
    """All settings, in the sections of the components that own them."""

    rpc: RpcConfig = field(default_factory=RpcConfig)
    solver: SolverConfig = field(default_factory=SolverConfig)
    limits: Limits = field(default_factory=Limits)
    sessions: SessionConfig = field(default_factory=SessionConfig)
    history: HistoryConfig = field(default_factory=HistoryConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    logs: LogConfig = field(default_factory=LogConfig)


class Option(NamedTuple):
    """One setting: its name, type and default as a dataclass field, and its description."""

    name: str
    kind: Any
    default: Any
    about: Setting

    @property
    def env(self) -> str:
        """Its name in the environment."""
        return PREFIX + self.name.upper()

    @property
    def flag(self) -> str:
        """Its name on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def choices(self) -> tuple[str, ...]:
        """The values that it may have; empty if they are not a fixed list."""
        return get_args(self.kind) if get_origin(self.kind) is Literal else ()


class Section(NamedTuple):
    """The settings of one component."""

    name: str
    title: str
    make: type
    options: tuple[Option, ...]


def sections() -> tuple[Section, ...]:
    """All settings, by section."""
    kinds = get_type_hints(ServerConfig)
    return tuple(_section(f.name, kinds[f.name]) for f in fields(ServerConfig))


def load_config(
    flags: Mapping[str, Any], environment: Mapping[str, str], file: Path | None = None
) -> ServerConfig:
    """Load the configuration from these sources.

    Args:
        flags: values of the flags that were given, by name of the setting.
        environment: variables by name. One that is one edit away from that of a setting is
            refused; see `unknown_in` for others.
        file: TOML file; None to use the file named by TRIMTAB_CONFIG, if any.

    Raises:
        InvalidArgumentError: a setting is invalid; the message names each one, its value,
            the rule and the source of the value.
    """
    if file is None and environment.get(FILE_VARIABLE):
        file = Path(environment[FILE_VARIABLE])
    sources = [
        *([(f"in {file}", _read_file(file))] if file else []),
        ("in the environment", _of_environment(environment)),
        ("on the command line", flags),
    ]
    found = [
        Violation(each.name, f"no such setting: it is spelt {each.nearest} (in the environment)")
        for each in unknown_in(environment)
        if each.is_misspelt
    ]
    values = _merge(sources, found)
    made = {section.name: _make(section, values, found) for section in sections()}
    if found:
        raise InvalidArgumentError(*found)
    return ServerConfig(**made)


def unknown_in(environment: Mapping[str, str]) -> list[UnknownVariable]:
    """The variables that look like settings, and are neither settings nor known otherwise."""
    names = [option.env for section in sections() for option in section.options]
    return unknown_variables(environment, [*names, FILE_VARIABLE])


def to_toml(config: ServerConfig) -> str:
    """The configuration as the text of a file that `load_config` can read, with comments."""
    blocks = []
    for section in sections():
        owner = getattr(config, section.name)
        lines = [f"# {section.title}", ""]
        for option in section.options:
            value = getattr(owner, option.name)
            unset = "# " if value is None else ""
            unit = f" [{option.about.unit}]" if option.about.unit else ""
            lines += [f"# {option.about.doc}{unit}"]
            lines += [f"{unset}{option.name} = {_toml_value(value)}", ""]
        blocks.append("\n".join(lines))
    return "\n".join(blocks)


def _section(name: str, owner: type) -> Section:
    kinds = get_type_hints(owner)
    options = tuple(
        Option(f.name, kinds[f.name], f.default, f.metadata[KEY]) for f in fields(owner)
    )
    return Section(name, (owner.__doc__ or "").rstrip("."), owner, options)


def _of_environment(environment: Mapping[str, str]) -> dict[str, str]:
    options = [option for section in sections() for option in section.options]
    given = {option.name: environment.get(option.env) for option in options}
    return {name: value for name, value in given.items() if value is not None}


def _read_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise invalid("config", f"cannot read {path}: {error}") from error


def _merge(
    sources: Sequence[tuple[str, Mapping[str, Any]]], found: list[Violation]
) -> dict[str, Any]:
    """Merge and check the values, by name; later sources override earlier ones."""
    known = {option.name: option for section in sections() for option in section.options}
    merged: dict[str, Any] = {}
    for source, given in sources:
        for name, raw in given.items():
            if name not in known:
                found.append(Violation(name, f"no such setting ({source})"))
                continue
            try:
                merged[name] = _parse(known[name], raw)
            except ValueError as error:
                found.append(Violation(name, f"{error} ({source})"))
    return merged


def _make(section: Section, values: Mapping[str, Any], found: list[Violation]) -> Any:
    mine = {o.name: values[o.name] for o in section.options if o.name in values}
    try:
        return section.make(**mine)
    except InvalidArgumentError as error:
        found.extend(error.violations)
        return None


def _parse(option: Option, raw: Any) -> Any:
    """The value of `raw`, which is text from flags and environment, or typed from TOML.

    Raises:
        ValueError: it has the wrong type, or breaks the setting's rule.
    """
    value = _of_kind(option, raw)
    if option.choices and value not in option.choices:
        raise ValueError(f"{value!r} is not one of {', '.join(option.choices)}")
    complaint = option.about.rule(value)
    if complaint is not None:
        raise ValueError(complaint)
    return value


def _of_kind(option: Option, raw: Any) -> Any:
    if option.kind is bool:
        return _parse_bool(raw)
    if option.kind is int:
        return _parse_number(int, raw, "a whole number")
    if option.kind is float:
        return _parse_number(float, raw, "a number")
    if not isinstance(raw, str):
        raise ValueError(f"{raw!r} is not text")  # noqa: TRY004
    return raw if option.kind is str or option.choices else Path(raw)


def _parse_bool(raw: Any) -> bool:
    spellings = {"true": True, "false": False}
    value = raw if isinstance(raw, bool) else spellings.get(str(raw).lower())
    if value is None:
        raise ValueError(f"{raw!r} is not true or false")
    return value


def _parse_number(kind: type[int | float], raw: Any, what: str) -> int | float:
    try:
        value = kind(raw) if isinstance(raw, str) else raw
    except ValueError:
        raise ValueError(f"{raw!r} is not {what}") from None
    accepted = (int, float) if kind is float else int
    if isinstance(value, bool) or not isinstance(value, accepted) or not math.isfinite(value):
        raise ValueError(f"{raw!r} is not {what}")
    return kind(value)


def _toml_value(value: Any) -> str:
    # JSON strings, numbers and booleans are also valid TOML.
    return json.dumps(value if isinstance(value, int | float | bool) else str(value or ""))
