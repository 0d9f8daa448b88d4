"""Loads and placements in .npz and .json files."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab_client.placement import Placement
from trimtab_tools.cli.errors import CommandError, UsageError

Array = npt.NDArray[Any]


def read_load(path: Path, key: str | None, index: int | None, *, total: bool) -> Array:
    """Read a load [L, E] from a file that holds a load, or a trace of loads [T, L, E].

    Args:
        path: an .npz or .json file.
        key: name of the array in the file; None for "load", or for the only one.
        index: number of the load in a trace; negative numbers count from its end.
        total: take the sum over the trace instead.

    Raises:
        CommandError: the file holds no such array.
        UsageError: the file holds a trace, and neither `index` nor `total` is given; or it
            holds no trace, and one of them is given.
    """
    load = _pick(_read(path), key, path)
    if load.ndim != 3:
        if total or index is not None:
            raise UsageError(f"{path} holds one load, not a trace: leave out --index and --sum")
        return load
    if total:
        return _summed(load, path)
    if index is None:
        raise UsageError(f"{path} holds {len(load)} loads: choose one by --index, or --sum them")
    if not -len(load) <= index < len(load):
        raise CommandError(f"--index {index}: {path} holds {len(load)} loads")
    return np.asarray(load[index])


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


def read_placement(path: Path) -> Array:
    """Read `phy2log` [L, R] from a file of `trimtab place --output`, or of the same format.

    Raises:
        CommandError: the file holds no such array.
    """
    arrays = _read(path)
    if isinstance(arrays, Mapping) and isinstance(arrays.get("placement"), Mapping):
        arrays = arrays["placement"]
    return _pick(arrays, "phy2log" if isinstance(arrays, Mapping) else None, path)


def check_output(path: Path | None, option: str) -> None:
    """Refuse a file name of unknown format before any work is done.

    Args:
        path: of the file; None for no file.
        option: that named the file, for the message.

    Raises:
        UsageError: the name ends neither in .npz nor in .json.
    """
    if path is not None and path.suffix not in (".npz", ".json"):
        raise UsageError(f"{option} {path}: must end in .npz or .json")


def placement_arrays(placement: Placement) -> dict[str, Any]:
    """The arrays of a placement for an .npz file."""
    return {
        "phy2log": placement.phy2log,
        "log2phy": placement.log2phy,
        "logcnt": placement.logcnt,
        "num_experts": placement.num_experts,
        "num_gpus": placement.num_gpus,
        "digest": np.frombuffer(placement.digest, np.uint8),
    }


def _read(path: Path) -> Any:
    match path.suffix:
        case ".npz":
            try:
                with np.load(path) as arrays:
                    return dict(arrays)
            except (ValueError, zipfile.BadZipFile) as error:
                why = f"is not an .npz file of plain arrays: {error}"
                raise CommandError(f"{path}: {why}") from error
        case ".json":
            try:
                return json.loads(path.read_text())
            except ValueError as error:
                raise CommandError(f"{path}: is not JSON: {error}") from error
    raise CommandError(f"{path}: must be an .npz or a .json file")


def _pick(content: Any, key: str | None, path: Path) -> Array:
    if not isinstance(content, Mapping):
        if key is not None:
            raise CommandError(f"{path}: holds one array, without names: leave out --key")
        return _array(content, path)
    names = list(content)
    if key is None:
        key = names[0] if len(names) == 1 else "load"
    if key not in content:
        raise CommandError(f"{path}: holds no {key!r}, but {', '.join(names)}: choose by --key")
    return _array(content[key], path)


def _array(value: Any, path: Path) -> Array:
    try:
        return np.asarray(value)
    except ValueError as error:
        raise CommandError(f"{path}: is not an array: {error}") from error
