"""Loads and placements in files, as commands take them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab_client.exceptions import InvalidArgumentError
from trimtab_tools import formats
from trimtab_tools.cli.errors import CommandError, UsageError
from trimtab_tools.formats.entries import require_amounts

Array = npt.NDArray[Any]

STANDARD = Path("-")
"""Stands for standard input where a file is read, and for standard output where one is written."""

_STANDARD_INPUT = Path("standard input")


def add_format(parser: Any, flag: str = "--format", of: str = "FILE") -> None:
    """Add the option that says which format a file has."""
    about = f"format of {of} (default: by its name and content)"
    parser.add_argument(flag, choices=formats.FORMATS, help=about)


def read_load(
    paths: Sequence[Path],
    format_name: str | None,
    key: str | None,
    index: int | None,
    *,
    total: bool,
) -> Array:
    """Read a load [L, E] from files that hold a load, or a trace of loads [T, L, E], each.

    Args:
        paths: of the files; their loads are added up.
        format_name: see `formats.read_load`.
        key: see `formats.read_load`.
        index: number of the load in a trace; negative numbers count from its end.
        total: take the sum over the trace instead.

    Raises:
        CommandError: the files hold no such load.
        InvalidArgumentError: see `formats.read_load`.
        UsageError: a file holds a trace, and neither `index` nor `total` is given; or it
            holds no trace, and one of them is given.
    """
    names = [_STANDARD_INPUT if path == STANDARD else path for path in paths]
    read = [_read(path, format_name, key) for path in paths]
    chosen = zip(read, names, strict=True)
    loads = [_chosen(load, name, index, total) for load, name in chosen]
    first, *others = loads
    for name, load in zip(names[1:], others, strict=True):
        if load.shape != first.shape:
            sizes = f"{list(load.shape)}, but {names[0]} has {list(first.shape)}"
            raise CommandError(f"{name}: the load is {sizes}")
    return first if not others else _summed(np.stack(loads), names[0])


def refuse_twice(*paths: Path | None) -> None:
    """Refuse to read standard input more than once.

    Raises:
        UsageError: more than one of these files is `-`.
    """
    if paths.count(STANDARD) > 1:
        raise UsageError("- stands for standard input, which can be read once: name other files")


def refuse_standard(path: Path | None, option: str, why: str) -> None:
    """Refuse `-` where a real file is needed.

    Raises:
        UsageError: the file is `-`.
    """
    if path == STANDARD:
        raise UsageError(f"{option} cannot be -: {why}")


@contextmanager
def _on_disk(path: Path, format_name: str | None) -> Iterator[Path]:
    """The file, or one with all of standard input: JSON, unless a format is named.

    Errors name standard input instead of that file.
    """
    if path != STANDARD:
        yield path
        return
    with TemporaryDirectory(prefix="trimtab-") as folder:
        copy = Path(folder) / ("input.json" if format_name is None else "input")
        copy.write_bytes(sys.stdin.buffer.read())
        try:
            yield copy
        except InvalidArgumentError as error:
            raise type(error)(str(error).replace(str(copy), str(_STANDARD_INPUT))) from error


def write_to_standard_output(saved: formats.SavedPlacement, format_name: str) -> None:
    """Write a placement as a file of this format to standard output.

    Raises:
        InvalidArgumentError: the format cannot hold it; the error says why.
    """
    with TemporaryDirectory(prefix="trimtab-") as folder:
        copy = Path(folder) / "output"
        try:
            formats.write_placement(saved, copy, format_name)
        except InvalidArgumentError as error:
            raise type(error)(str(error).replace(str(copy), "standard output")) from error
        sys.stdout.flush()
        sys.stdout.buffer.write(copy.read_bytes())
        sys.stdout.buffer.flush()


def _read(path: Path, format_name: str | None, key: str | None) -> Array:
    try:
        with _on_disk(path, format_name) as file:
            return formats.read_load(file, format_name, key)
    except formats.NoSuchArrayError as error:
        raise CommandError(f"{error}: name one of them by --key") from error


def _chosen(load: Array, path: Path, index: int | None, total: bool) -> Array:
    if load.ndim != 3:
        if total or index is not None:
            raise UsageError(f"{path} holds one load, not a trace: leave out --index and --sum")
        require_amounts(load, path)
        return load
    if total:
        require_amounts(load, path)
        return _summed(load, path)
    if index is None:
        raise UsageError(f"{path} holds {len(load)} loads: choose one by --index, or --sum them")
    if not -len(load) <= index < len(load):
        raise CommandError(f"--index {index}: {path} holds {len(load)} loads")
    chosen = np.asarray(load[index])
    require_amounts(chosen, path, [index % len(load)])
    return chosen


def _summed(load_TLE: Array, path: Path) -> Array:
    """The sum over a trace, in 64 bits, since narrow types overflow; refused if int64 does."""
    if load_TLE.dtype.kind == "f":
        return np.asarray(load_TLE.sum(axis=0, dtype=np.float64))
    if load_TLE.dtype.kind in "iu":
        about_LE = load_TLE.sum(axis=0, dtype=np.float64)
        if np.abs(about_LE).max(initial=0) >= 2.0**63:
            layer, expert = np.unravel_index(np.abs(about_LE).argmax(), about_LE.shape)
            where = f"layer {layer}, expert {expert}"
            raise CommandError(f"{path}: {where}: the sum, {about_LE.max():.4g}, is beyond int64")
    return np.asarray(load_TLE.sum(axis=0))


def check_output(path: Path | None, format_name: str | None, option: str) -> None:
    """Refuse a file of unknown format before any work is done.

    Args:
        path: of the file; None for no file.
        format_name: see `formats.read_load`.
        option: that named the file, for the message.

    Raises:
        UsageError: nothing says which format it is to have.
    """
    if path is None:
        return
    try:
        formats.check_output(path, format_name)
    except InvalidArgumentError as error:
        raise UsageError(f"{option} {error}") from error


def read_placement(arguments: argparse.Namespace, path: Path | None) -> Array | None:
    """Read `phy2log` [L, R] from a file, whose format --format may name; None without one."""
    if path is None:
        refuse_alone(arguments.format, "--format", "a file")
        return None
    return placement_of(path, arguments.format)


def placement_of(path: Path, format_name: str | None) -> Array:
    """Read `phy2log` [L, R] from a file or standard input; see `formats.read_placement`."""
    with _on_disk(path, format_name) as file:
        return formats.read_placement(file, format_name)


def refuse_alone(value: object, option: str, needed: str) -> None:
    """Refuse an option that says something of a file that is not given."""
    if value is not None:
        raise UsageError(f"{option} needs {needed}")
