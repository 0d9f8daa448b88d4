"""Reads and writes files: which format a file has, and how its bytes become content and back."""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from trimtab_client.exceptions import invalid
from trimtab_tools.formats.layout import Array, Layout, SavedPlacement
from trimtab_tools.formats.optional import load_parquet, load_torch, save_parquet, save_torch
from trimtab_tools.formats.plain import Plain
from trimtab_tools.formats.sglang import Sglang
from trimtab_tools.formats.table import Table
from trimtab_tools.formats.tensorrt_llm import TensorRtLlm
from trimtab_tools.formats.vllm_ascend import VllmAscend


class _Kind(NamedTuple):
    """How bytes become content, and content bytes; files of one kind end alike."""

    load: Callable[[Path], Any]
    save: Callable[[Any, Path], None]


class _Format(NamedTuple):
    """A format of files.

    Attributes:
        layout: of their content.
        suffixes: how their names end; the first if a name says nothing.
        names_layers: whether they say which layers of the model a placement is for.
    """

    layout: Layout
    suffixes: tuple[str, ...]
    names_layers: bool = True


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
    content, layout = _read(path, format_name)
    load = layout.load(content, path, key)
    if load.ndim not in (2, 3) or not load.size:
        shape = list(load.shape)
        raise invalid(str(path), f"the load is {shape}, not [layers, experts], or with windows")
    return load


def read_placement(path: Path, format_name: str | None = None) -> Array:
    """Read `phy2log` [L, R], the expert in each slot; see `read_load`."""
    content, layout = _read(path, format_name)
    phy2log = layout.placement(content, path)
    if phy2log.ndim != 2 or not phy2log.size:
        raise invalid(str(path), f"the placement is {list(phy2log.shape)}, not [layers, slots]")
    return phy2log


def write_placement(saved: SavedPlacement, path: Path, format_name: str | None = None) -> None:
    """Write a placement.

    Raises:
        InvalidArgumentError: the format cannot hold it; the error says why.
        OSError: the file cannot be written.
    """
    chosen, kind = _chosen(path, format_name)
    kind.save(chosen.layout.content(saved, path), path)


def check_output(path: Path, format_name: str | None = None) -> None:
    """Refuse a file of unknown format before any work is done.

    Raises:
        InvalidArgumentError: its name has none of the known ends, and no format is named.
    """
    _chosen(path, format_name)


def names_layers(path: Path, format_name: str | None = None) -> bool:
    """Whether a file says which layers of the model a placement is for; see `check_output`."""
    return _chosen(path, format_name)[0].names_layers


def _read(path: Path, format_name: str | None) -> tuple[Any, Layout]:
    chosen, kind = _chosen(path, format_name)
    content = kind.load(path)
    if format_name is not None:
        return content, chosen.layout
    fitting = (each.layout for each in _ENGINES.values() if each.layout.fits(content))
    return content, next(fitting, chosen.layout)


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
        with np.load(path) as arrays:
            return dict(arrays)
    except (ValueError, zipfile.BadZipFile, TypeError, AttributeError) as error:
        raise invalid(str(path), f"is not an .npz file of plain arrays: {error}") from error


def _save_npz(content: Mapping[str, Any], path: Path) -> None:
    with path.open("wb") as file:
        np.savez_compressed(file, **content)


def _load_npy(path: Path) -> Any:
    try:
        return np.asarray(np.load(path))
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
    with path.open(newline="") as file:
        rows = [row for row in csv.reader(file) if row]
    if not rows:
        raise invalid(str(path), "has no rows")
    names = [] if _is_number(rows[0][0]) else [name.strip() for name in rows.pop(0)]
    width = len(names or rows[0])
    for index, row in enumerate(rows):
        if len(row) != width:
            raise invalid(str(path), f"row {index + 1} has {len(row)} numbers, not {width}")
    columns = [_numbers([row[at] for row in rows], path) for at in range(width)]
    return dict(zip(names, columns, strict=True)) if names else np.stack(columns, axis=1)


def _save_csv(content: Mapping[str, Array], path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(content)
        writer.writerows(zip(*(column.tolist() for column in content.values()), strict=True))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _numbers(cells: list[str], path: Path) -> Array:
    """The numbers of a column: integers, if all of them are."""
    for kind in (int, float):
        try:
            return np.array([kind(cell) for cell in cells])
        except (ValueError, OverflowError) as error:
            why = error
    raise invalid(str(path), f"is not a table of numbers: {why}")


def _listed(value: Any) -> Any:
    return value.tolist()


_KINDS = {
    ".npz": _Kind(_load_npz, _save_npz),
    ".npy": _Kind(_load_npy, _save_npy),
    ".json": _Kind(_load_json, _save_json),
    ".csv": _Kind(_load_csv, _save_csv),
    ".parquet": _Kind(load_parquet, save_parquet),
    ".pt": _Kind(load_torch, save_torch),
    ".yaml": _Kind(_load_yaml, _save_yaml),
    ".yml": _Kind(_load_yaml, _save_yaml),
}
_OWN = {
    "npz": _Format(Plain("npz"), (".npz",), names_layers=False),
    "npy": _Format(Plain("npy"), (".npy",), names_layers=False),
    "json": _Format(Plain("json"), (".json",), names_layers=False),
    "csv": _Format(Table(), (".csv",)),
    "parquet": _Format(Table(), (".parquet",)),
}
_ENGINES = {
    "sglang": _Format(Sglang(), (".pt", ".json")),
    "vllm-ascend": _Format(VllmAscend(), (".json",), names_layers=False),
    "tensorrt-llm": _Format(TensorRtLlm(), (".yaml", ".yml")),
}
_ALL = {**_OWN, **_ENGINES}

FORMATS = tuple(_ALL)
"""The names of the formats."""
