"""Reads and writes files: which format a file has, and how its bytes become content and back."""

from __future__ import annotations

import csv
import json
import os
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from trimtab_client.exceptions import InvalidArgumentError, invalid
from trimtab_tools.formats import sglang, tensorrt_llm, vllm_ascend
from trimtab_tools.formats.entries import is_number, require_integers
from trimtab_tools.formats.layout import Array, Layout, SavedPlacement, has, require_distinct
from trimtab_tools.formats.optional import (
    library,
    load_parquet,
    load_torch,
    save_parquet,
    save_torch,
)
from trimtab_tools.formats.plain import Plain
from trimtab_tools.formats.sglang import Sglang
from trimtab_tools.formats.table import Table
from trimtab_tools.formats.tensorrt_llm import TensorRtLlm
from trimtab_tools.formats.vllm_ascend import VllmAscend


class _Kind(NamedTuple):
    """How bytes become content, and content bytes; files of one kind end alike.

    Attributes:
        load: reads.
        save: writes.
        library: what it needs and `trimtab-tools` does not install; None for nothing.
    """

    load: Callable[[Path], Any]
    save: Callable[[Any, Path], None]
    library: str | None = None


class _Format(NamedTuple):
    """A format of files.

    Attributes:
        layout: of their content.
        suffixes: how their names end; the first if a name says nothing.
        names_layers: whether they say which layers of the model a placement is for.
        marks: names of an engine by which their content is known.
    """

    layout: Layout
    suffixes: tuple[str, ...]
    names_layers: bool = True
    marks: tuple[str, ...] = ()


def read_load(path: Path, format_name: str | None = None, key: str | None = None) -> Array:
    """Read the load of each expert: [L, E], or [T, L, E] if the file holds a trace.

    Args:
        path: of the file.
        format_name: one of `FORMATS`; None to see by the file what it is.
        key: name of the array in the file, or of the column; None for that of the format.

    Raises:
        InvalidArgumentError: it is no such file, or holds no load; the error says what it has.
        OSError: it cannot be read.
    """
    load = _read(path, format_name, lambda layout, content: layout.load(content, path, key))
    if load.ndim not in (2, 3) or not load.size:
        shape = list(load.shape)
        raise invalid(str(path), f"the load is {shape}, not [layers, experts], or with windows")
    return load


def read_placement(path: Path, format_name: str | None = None) -> Array:
    """Read `phy2log` [L, R], the expert in each slot; see `read_load`."""
    phy2log = _read(path, format_name, lambda layout, content: layout.placement(content, path))
    if phy2log.ndim != 2 or not phy2log.size:
        raise invalid(str(path), f"the placement is {list(phy2log.shape)}, not [layers, slots]")
    require_integers(phy2log, path)
    return phy2log


def write_placement(saved: SavedPlacement, path: Path, format_name: str | None = None) -> None:
    """Write a placement. A file that was there is replaced only once the new one is complete.

    Raises:
        InvalidArgumentError: the format cannot hold it; the error says why.
        OSError: the file cannot be written.
    """
    chosen, kind = _chosen(path, format_name)
    content = chosen.layout.content(saved, path)
    if path.exists() and not path.is_file():
        kind.save(content, path)  # such as /dev/stdout
        return
    target = path.resolve()  # a link stays one
    complete = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        kind.save(content, complete)
        complete.replace(target)
    finally:
        complete.unlink(missing_ok=True)


def check_output(path: Path, format_name: str | None = None) -> None:
    """Refuse a file of unknown format before any work is done.

    Raises:
        InvalidArgumentError: its name has none of the known ends, and no format is named; or a
            library is missing.
    """
    _, kind = _chosen(path, format_name)
    if kind.library is not None:
        library(kind.library, path)


def names_layers(path: Path, format_name: str | None = None) -> bool:
    """Whether a file says which layers of the model a placement is for; see `check_output`."""
    return _chosen(path, format_name)[0].names_layers


def _read(path: Path, format_name: str | None, find: Callable[[Layout, Any], Array]) -> Array:
    """What is found in a file, by the layout that the user names, or that its content has."""
    chosen, kind = _chosen(path, format_name)
    try:
        content = kind.load(path)
        layout = chosen.layout if format_name else _layout_of(content, path, chosen)
        return find(layout, content)
    except (InvalidArgumentError, FileNotFoundError, IsADirectoryError, PermissionError):
        raise
    except Exception as error:
        # Damaged files make the libraries that read them raise all kinds of errors.
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise invalid(
            str(path), f"is damaged, or no {path.suffix or 'such'} file: {what}"
        ) from error


def _layout_of(content: Any, path: Path, chosen: _Format) -> Layout:
    """The layout that content has by its names; that of files that end alike, if none."""
    if has(content, "load", "phy2log"):
        return _ALL["json"].layout if chosen.marks else chosen.layout
    alike = (each for each in _ALL.values() if path.suffix.lower() in each.suffixes)
    return next((each for each in alike if has(content, *each.marks)), chosen).layout


def _chosen(path: Path, format_name: str | None) -> tuple[_Format, _Kind]:
    """The format that a name asks for, or that of files that end like this one."""
    suffix = path.suffix.lower()
    if format_name is None:
        chosen = next((each for each in _ALL.values() if suffix in each.suffixes), None)
        if chosen is None:
            known = ", ".join(dict.fromkeys(end for each in _ALL.values() for end in each.suffixes))
            raise invalid(str(path), f"ends in none of {known}: name its format by --format")
        return chosen, _KINDS[suffix]
    chosen = _ALL[format_name]
    if suffix in _KINDS and suffix not in chosen.suffixes:
        ends = " or ".join(chosen.suffixes)
        raise invalid(str(path), f"a file of the format {format_name} ends in {ends}")
    return chosen, _KINDS[suffix if suffix in chosen.suffixes else chosen.suffixes[0]]


# The kinds.


def _load_npz(path: Path) -> Any:
    try:
        # NumPy would leave a file open that it cannot read.
        with path.open("rb") as file, np.load(file) as arrays:
            return {name: _plain(arrays, name) for name in arrays.files}
    except (ValueError, zipfile.BadZipFile, TypeError, AttributeError) as error:
        raise invalid(str(path), f"is not an .npz file of plain arrays: {error}") from error


def _plain(arrays: Any, name: str) -> Any:
    """An array of the file; None if reading it would run code. It may not be the one wanted."""
    try:
        return arrays[name]
    except ValueError:
        return None


def _save_npz(content: Mapping[str, Any], path: Path) -> None:
    with path.open("wb") as file:
        np.savez_compressed(file, **content)


def _load_npy(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            return np.asarray(np.load(file))
    except (ValueError, EOFError) as error:
        raise invalid(str(path), f"is not an .npy file of plain numbers: {error}") from error


def _save_npy(content: Any, path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, content)


def _load_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise invalid(str(path), f"is not JSON: {error}") from error


def _save_json(content: Any, path: Path) -> None:
    if not isinstance(content, str):
        content = json.dumps(content, default=_listed) + "\n"
    path.write_text(content)


def _load_yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text())
    except (yaml.YAMLError, ValueError) as error:
        raise invalid(str(path), f"is not YAML: {error}") from error


def _save_yaml(content: Any, path: Path) -> None:
    # The lists of experts in one line each.
    path.write_text(yaml.safe_dump(content, default_flow_style=None, sort_keys=False, width=10**6))


def _load_csv(path: Path) -> Any:
    # With the mark that Excel begins files with, or without it.
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = [row for row in csv.reader(file) if row]
    if not rows:
        raise invalid(str(path), "has no rows")
    names = [] if is_number(rows[0][0]) else [name.strip() for name in rows.pop(0)]
    width = len(names or rows[0])
    for index, row in enumerate(rows):
        if len(row) != width:
            raise invalid(str(path), f"row {index + 1} has {len(row)} numbers, not {width}")
    columns = [_numbers([row[at] for row in rows]) for at in range(width)]
    if names:
        require_distinct(names, path)
        return dict(zip(names, columns, strict=True))
    for at, column in enumerate(columns):
        if column.dtype.kind not in "if":
            line = next(line for line, cell in enumerate(column.tolist()) if not is_number(cell))
            where = f"row {line + 1}, column {at + 1}"
            raise invalid(str(path), f"{where}: {str(column[line])!r} is not a number")
    matrix = np.stack(columns, axis=1)
    if width > 1 and matrix[0].tolist() == list(range(width)):
        raise invalid(str(path), "begins with 0, 1, 2, …, which looks like a header: leave it out")
    return matrix


def _save_csv(content: Mapping[str, Array], path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(content)
        writer.writerows(zip(*(column.tolist() for column in content.values()), strict=True))


def _numbers(cells: list[str]) -> Array:
    """The numbers of a column: integers, if all of them are; text if it has no numbers."""
    for kind in (int, float):
        with suppress(ValueError, OverflowError):
            return np.array([kind(cell) for cell in cells])
    return np.array(cells)


def _listed(value: Any) -> Any:
    return value.tolist()


_KINDS = {
    ".npz": _Kind(_load_npz, _save_npz),
    ".npy": _Kind(_load_npy, _save_npy),
    ".json": _Kind(_load_json, _save_json),
    ".csv": _Kind(_load_csv, _save_csv),
    ".parquet": _Kind(load_parquet, save_parquet, "pyarrow"),
    ".pt": _Kind(load_torch, save_torch, "torch"),
    ".yaml": _Kind(_load_yaml, _save_yaml),
    ".yml": _Kind(_load_yaml, _save_yaml),
}
_ALL = {
    "npz": _Format(Plain("npz"), (".npz",), names_layers=False),
    "npy": _Format(Plain("npy"), (".npy",), names_layers=False),
    "json": _Format(Plain("json"), (".json",), names_layers=False),
    "csv": _Format(Table(), (".csv",)),
    "parquet": _Format(Table(), (".parquet",)),
    "sglang": _Format(Sglang(), (".pt", ".json"), marks=sglang.MARKS),
    "vllm-ascend": _Format(VllmAscend(), (".json",), names_layers=False, marks=vllm_ascend.MARKS),
    "tensorrt-llm": _Format(TensorRtLlm(), (".yaml", ".yml"), marks=tensorrt_llm.MARKS),
}

FORMATS = tuple(_ALL)
"""The names of the formats."""
