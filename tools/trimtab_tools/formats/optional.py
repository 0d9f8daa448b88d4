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


def load_torch(path: Path) -> Any:
    """Content of a file of `torch.save`, its tensors as arrays. Runs no code of the file.

    Raises:
        InvalidArgumentError: torch is not installed, or the file holds more than tensors and
            plain values.
    """
    torch = _library("torch", path, "server")
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
    torch = _library("torch", path, "server")
    torch.save({name: torch.from_numpy(value.copy()) for name, value in content.items()}, path)


def load_parquet(path: Path) -> dict[str, Any]:
    """The columns of a Parquet file."""
    parquet = _library("pyarrow.parquet", path, "parquet")
    pyarrow = importlib.import_module("pyarrow")
    try:
        table = parquet.read_table(path)
    except pyarrow.ArrowInvalid as error:
        raise invalid(str(path), f"is not a Parquet file: {error}") from error
    return {name: table.column(name).to_numpy() for name in table.column_names}


def save_parquet(columns: Mapping[str, Any], path: Path) -> None:
    """Write columns."""
    parquet = _library("pyarrow.parquet", path, "parquet")
    parquet.write_table(importlib.import_module("pyarrow").table(dict(columns)), path)


def _library(name: str, path: Path, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        needed = name.partition(".")[0]
        why = f"needs {needed}: pip install 'trimtab-tools[{extra}]'"
        raise invalid(str(path), why) from error


def _as_arrays(content: Any, tensor: type) -> Any:
    if isinstance(content, tensor):
        value: Any = content
        # NumPy has no bfloat16.
        return (value.float() if value.is_floating_point() else value).numpy()
    if isinstance(content, Mapping):
        return {name: _as_arrays(value, tensor) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_as_arrays(value, tensor) for value in content]
    return content if not isinstance(content, np.generic) else content.item()
