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

# Untyped, since Numba creates its attributes at import.
_settings: Any = numba_config

_Function = TypeVar("_Function", bound=Callable[..., Any])

_CODE_SETTINGS = (
    "BOUNDSCHECK",
    # How LLVM optimises.
    "OPT",
    "LOOP_VECTORIZE",
    "SLP_VECTORIZE",
    # Which updates of reference counts are pruned.
    "LLVM_REFPRUNE_PASS",
    "LLVM_REFPRUNE_FLAGS",
    # Whether Intel's vector functions are called: true if they are installed and not disabled.
    "USING_SVML",
    # Line numbers for debuggers, and longer lifetimes of variables.
    "DEBUGINFO_DEFAULT",
    "EXTEND_VARIABLE_LIFETIMES",
    # Calls that print.
    "DEBUG_JIT",
    "DEBUG_NRT",
    "DEBUG_NRT_STACK_LIMIT",
    # Only Numba 0.61 has this one.
    "USE_LEGACY_TYPE_SYSTEM",
)
"""Numba's settings that change the generated code, and that its own cache ignores.

Settings of processors (NUMBA_CPU_NAME, NUMBA_CPU_FEATURES, NUMBA_ENABLE_AVX) are in the
`magic_tuple` of its codegen; the others change messages, parallel loops, or CUDA.
"""


def compiled(function: _Function) -> _Function:
    """Compile a function that only compiled functions call.

    It must not allocate arrays, so that no references have to be counted. And it is inlined
    into each caller, since a call passes each array of a tuple as seven words. Both would take
    longer than most of these functions do: without inlining, plans take 1.2 to 1.3 times as
    long, and `improve` 1.8 times.
    """
    return _compile(function, _nrt=False, forceinline=True)


def entry(function: _Function) -> _Function:
    """Compile a function that Python calls, or that allocates arrays.

    It runs without the GIL, and is compiled at the first call with arguments of new types.
    The machine code is kept below NUMBA_CACHE_DIR, or else below the user's cache folder. A
    read-only folder is used as it is. Without a folder that can be read or written, each
    process compiles again.
    """
    return _compile(function)


class _Place:
    """Tells Numba where the code of a function is kept; a "locator" of Numba's cache."""

    def __init__(self, function: Callable[..., Any], file: str) -> None:
        self._py_file = file
        self._line = function.__code__.co_firstlineno

    @classmethod
    def from_function(cls, function: Callable[..., Any], file: str) -> _Place:
        return cls(function, file)

    def ensure_cache_path(self) -> None:
        """Create the folder; Numba calls this before it writes code."""
        Path(self.get_cache_path()).mkdir(parents=True, exist_ok=True)

    def get_cache_path(self) -> str:
        return str(_CACHE)

    def get_source_stamp(self) -> str:
        """Empty, since the name of the folder depends on the sources."""
        return ""

    def get_disambiguator(self) -> str:
        return str(self._line)


class _KeptCodeImpl(caching.CompileResultCacheImpl):
    _locator_classes = (_Place,)


class _KeptCode(caching.FunctionCache):
    """The code of a function on disk. If it cannot be read or written, calls only take longer."""

    _impl_class = _KeptCodeImpl

    def load_overload(self, *what: Any) -> Any:
        try:
            return super().load_overload(*what)  # type: ignore[no-untyped-call]
        except Exception:  # noqa: BLE001 - a truncated file raises anything: compile again
            return None

    def save_overload(self, *what: Any) -> None:
        with suppress(OSError):  # read-only, or full
            try:
                super().save_overload(*what)  # type: ignore[no-untyped-call]
            except OSError:
                raise
            except Exception:  # noqa: BLE001 - a truncated index: start a new one
                self.flush()  # type: ignore[no-untyped-call]
                super().save_overload(*what)  # type: ignore[no-untyped-call]


def _compile(function: _Function, **options: Any) -> _Function:
    dispatcher: Any = numba.njit(nogil=True, error_model="numpy", **options)(function)
    is_compiled = isinstance(dispatcher, Dispatcher)  # else NUMBA_DISABLE_JIT is set
    if is_compiled and _CACHE is not None:
        # Like `cache=True`, which however does not accept read-only folders.
        with _numbas_own_places_aside():
            dispatcher._cache = _KeptCode(function)  # type: ignore[no-untyped-call] # noqa: SLF001
    compiled_function: _Function = dispatcher
    return compiled_function


@contextmanager
def _numbas_own_places_aside() -> Iterator[None]:
    """Ignore NUMBA_CACHE_LOCATOR_CLASSES, whose folders do not depend on sources and settings."""
    before = getattr(_settings, "CACHE_LOCATOR_CLASSES", None)
    _settings.CACHE_LOCATOR_CLASSES = ""
    try:
        yield
    finally:
        _settings.CACHE_LOCATOR_CLASSES = before


def _cache_folder() -> Path | None:
    """The folder for machine code of this kind; None if none can be read or written."""
    kind = _kind_of_code()
    for base in filter(None, (_settings.CACHE_DIR, "~/.cache")):
        try:
            folder = Path(base).expanduser() / "trimtab" / kind
        except RuntimeError:  # the user has no home
            continue
        if _can_be_written(folder) or _can_be_read(folder):
            return folder
    return None


def _kind_of_code() -> str:
    """A digest of everything that machine code depends on, which names its folder.

    Numba alone would not notice a change of a function in another file, nor of most of its own
    settings.
    """
    here = Path(__file__).parent
    sources = sorted([*here.glob("*.py"), *here.with_name("reference").glob("*.py")])
    target = cpu_target.target_context.codegen().magic_tuple()
    settings = [repr(getattr(_settings, name, None)) for name in _CODE_SETTINGS]
    # NumPy's too, since Numba compiles NumPy's functions as they are in that version.
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
    """Whether the folder holds code, as in an image made with `trimtab-server warm`."""
    return any(os.access(index, os.R_OK) for index in folder.glob("*.nbi"))


_CACHE = _cache_folder()
