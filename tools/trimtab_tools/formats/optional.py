"""Kinds of files that need a library which `trimtab-tools` does not install by itself."""

from __future__ import annotations

import importlib
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trimtab_client.exceptions import invalid
from trimtab_tools.formats.layout import require_distinct

_EXTRAS = {"torch": "server", "pyarrow": "parquet"}


def load_torch(path: Path) -> Any:
    """Content of a file of `torch.save`, its tensors as arrays. Runs no code of the file.

    Raises:
        InvalidArgumentError: torch is not installed, or the file holds more than tensors and
            plain values.
    """
    torch = library("torch", path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        why = "holds more than tensors and plain values, which may run code, and is not read"
        raise invalid(str(path), why) from error
    except (RuntimeError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise invalid(str(path), "is not a file of torch.save") from error
    return _as_arrays(content, torch.Tensor)


def save_torch(content: Any, path: Path) -> None:
    """Write a mapping from names to arrays, as tensors."""
    torch = library("torch", path)
    tensors = {name: torch.from_numpy(value.copy()) for name, value in content.items()}
    # torch opens files in a way of its own, and has errors of its own for that.
    with path.open("wb") as file:
        torch.save(tensors, file)


def load_parquet(path: Path) -> dict[str, Any]:
    """The columns of a Parquet file."""
    parquet = library("pyarrow.parquet", path)
    pyarrow = importlib.import_module("pyarrow")
    try:
        table = parquet.read_table(path)
    except pyarrow.ArrowInvalid as error:
        raise invalid(str(path), f"is not a Parquet file: {error}") from error
    require_distinct(table.column_names, path)
    return {name: table.column(name).to_numpy() for name in table.column_names}


def save_parquet(columns: Mapping[str, Any], path: Path) -> None:
    """Write columns."""
    parquet = library("pyarrow.parquet", path)
    parquet.write_table(importlib.import_module("pyarrow").table(dict(columns)), path)


def library(name: str, path: Path) -> Any:
    """A library that files like this one need.

    Raises:
        InvalidArgumentError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        needed = name.partition(".")[0]
        why = f"needs {needed}: pip install 'trimtab-tools[{_EXTRAS[needed]}]'"
        raise invalid(str(path), why) from error


def _as_arrays(content: Any, tensor: Any) -> Any:
    if isinstance(content, tensor):
        value: Any = content.detach().to_dense()
        try:
            return value.numpy()
        except TypeError:  # NumPy has no bfloat16
            return value.float().numpy()
    if isinstance(content, Mapping):
        return {name: _as_arrays(value, tensor) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_as_arrays(value, tensor) for value in content]
    return content if not isinstance(content, np.generic) else content.item()
