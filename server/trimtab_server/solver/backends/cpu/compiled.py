"""Compiles loops with Numba, and keeps the machine code on disk for the next process."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import llvmlite
import numba
import numpy as np
from numba.core import caching
from numba.core import config as numba_config
from numba.core.dispatcher import Dispatcher
from numba.core.registry import cpu_target

# Its attributes are made when it is imported.
_settings: Any = numba_config

_Function = TypeVar("_Function", bound=Callable[..., Any])

_CODE_SETTINGS = (
    "BOUNDSCHECK",
    # How LLVM optimises.
    "OPT",
    "LOOP_VECTORIZE",
    "SLP_VECTORIZE",
    # Which updates of reference counts are left out.
    "LLVM_REFPRUNE_PASS",
    "LLVM_REFPRUNE_FLAGS",
    # Whether Intel's vector functions are called: they are installed, and not turned off.
    "USING_SVML",
    # Lines for debuggers, and variables that live on for them.
    "DEBUGINFO_DEFAULT",
    "EXTEND_VARIABLE_LIFETIMES",
    # Calls that print.
    "DEBUG_JIT",
    "DEBUG_NRT",
    "DEBUG_NRT_STACK_LIMIT",
    # Of Numba 0.61 alone.
    "USE_LEGACY_TYPE_SYSTEM",
)
"""Numba's settings that change the code it generates, and that its own cache does not look at.

Those of processors (NUMBA_CPU_NAME, NUMBA_CPU_FEATURES, NUMBA_ENABLE_AVX) are in its codegen's
`magic_tuple`; others change what it prints, parallel loops, or CUDA.
"""


def compiled(function: _Function) -> _Function:
    """Compile a function for the use of others that are compiled.

    It may not make arrays, only work on those that it is given: so it need not count
    references to them. And it is put in the place of each call, which would hand over each
    array of a tuple as seven words. Both take longer than most of these functions do:
    without the second, plans take 1.2 to 1.3 times as long, `improve` 1.8 times.
    """
    return _compile(function, _nrt=False, forceinline=True)


def entry(function: _Function) -> _Function:
    """Compile a function that Python calls, or that makes arrays.

    It runs without the GIL, and is compiled when it is first called with arguments of
    new types. The machine code is kept below NUMBA_CACHE_DIR, or else below the user's
    cache folder. A folder that can only be read is used as it is; where there is none, and
    none can be written to, each process compiles anew.
    """
    return _compile(function)


class _Place:
    """Tells Numba where the code of a function is kept: what its cache calls a locator."""

    def __init__(self, function: Callable[..., Any], file: str) -> None:
        self._py_file = file
        self._line = function.__code__.co_firstlineno

    @classmethod
    def from_function(cls, function: Callable[..., Any], file: str) -> _Place:
        return cls(function, file)

    def ensure_cache_path(self) -> None:
        """Called before code is written."""
        Path(self.get_cache_path()).mkdir(parents=True, exist_ok=True)

    def get_cache_path(self) -> str:
        return str(_CACHE)

    def get_source_stamp(self) -> str:
        """The folder's name says which sources these are."""
        return ""

    def get_disambiguator(self) -> str:
        return str(self._line)


class _KeptCodeImpl(caching.CompileResultCacheImpl):
    _locator_classes = (_Place,)


class _KeptCode(caching.FunctionCache):
    """A function's code on disk; without it, calls take longer, and do not fail."""

    _impl_class = _KeptCodeImpl

    def load_overload(self, *what: Any) -> Any:
        try:
            return super().load_overload(*what)  # type: ignore[no-untyped-call]
        except Exception:  # noqa: BLE001 - whatever half a file is read as: compile anew
            return None

    def save_overload(self, *what: Any) -> None:
        with suppress(OSError):  # read-only, or full
            try:
                super().save_overload(*what)  # type: ignore[no-untyped-call]
            except OSError:
                raise
            except Exception:  # noqa: BLE001 - half an index: begin another one
                self.flush()  # type: ignore[no-untyped-call]
                super().save_overload(*what)  # type: ignore[no-untyped-call]


def _compile(function: _Function, **options: Any) -> _Function:
    dispatcher: Any = numba.njit(nogil=True, error_model="numpy", **options)(function)
    is_compiled = isinstance(dispatcher, Dispatcher)  # else NUMBA_DISABLE_JIT is set
    if is_compiled and _CACHE is not None:
        # As `cache=True` does, but that takes no folder that cannot be written to.
        with _numbas_own_places_aside():
            dispatcher._cache = _KeptCode(function)  # type: ignore[no-untyped-call] # noqa: SLF001
    compiled_function: _Function = dispatcher
    return compiled_function


@contextmanager
def _numbas_own_places_aside() -> Iterator[None]:
    """NUMBA_CACHE_LOCATOR_CLASSES names places that know nothing of how code was generated."""
    before = getattr(_settings, "CACHE_LOCATOR_CLASSES", None)
    _settings.CACHE_LOCATOR_CLASSES = ""
    try:
        yield
    finally:
        _settings.CACHE_LOCATOR_CLASSES = before


def _cache_folder() -> Path | None:
    """Where machine code of this kind is kept; None where there is none and none can be written."""
    kind = _kind_of_code()
    for base in filter(None, (_settings.CACHE_DIR, "~/.cache")):
        try:
            folder = Path(base).expanduser() / "trimtab" / kind
        except RuntimeError:  # a user without a home
            continue
        if _can_be_written(folder) or _can_be_read(folder):
            return folder
    return None


def _kind_of_code() -> str:
    """A digest of all that machine code depends on, for the name of a folder.

    By itself Numba would not notice that a function called from another file has changed,
    nor most of its own settings.
    """
    here = Path(__file__).parent
    sources = sorted([*here.glob("*.py"), *here.with_name("reference").glob("*.py")])
    target = cpu_target.target_context.codegen().magic_tuple()
    settings = [repr(getattr(_settings, name, None)) for name in _CODE_SETTINGS]
    # NumPy's as well, since Numba compiles functions of NumPy as that version has them.
    versions = [module.__version__ for module in (numba, llvmlite, np)]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources))
    digest.update(repr((sys.implementation.cache_tag, versions, target, settings)).encode())
    return digest.hexdigest()[:16]


def _can_be_written(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _can_be_read(folder: Path) -> bool:
    """Whether there is code, such as in an image that was made with `trimtab-server warm`."""
    return any(os.access(index, os.R_OK) for index in folder.glob("*.nbi"))


_CACHE = _cache_folder()
