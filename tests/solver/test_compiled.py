"""Which machine code is kept on disk, and which processes use it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock

import pytest

pytestmark = pytest.mark.concurrent

ROOT = Path(__file__).parents[2]

WITHOUT_OVERRIDE = """
import ctypes, os, sys

# Root may read and write regardless of permissions, unless it drops these capabilities:
# PR_CAPBSET_DROP, CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH.
dropped = [ctypes.CDLL(None).prctl(24, capability, 0, 0, 0) for capability in (1, 2)]
assert dropped == [0, 0] or os.geteuid() != 0
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""

# Imports the compiled functions without the rest of the solver: torch and SciPy take longer to
# import than one function takes to compile.
ALONE = """
import sys, types
for name in ("trimtab_server.solver", "trimtab_server.solver.backends"):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = ["server/" + name.replace(".", "/")]
"""

# Prints the folder of the code, how often it was loaded, and how often it was compiled.
MAPPED = """
import numpy as np
from trimtab_server.solver.backends.cpu import compiled, maps

assert maps.slot_maps(np.array([[0, 1, 1]]), 2)[1].tolist() == [[1, 2]]
stats = maps.slot_maps.stats
print(compiled._CACHE, sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
"""

# Item 2 of two: code with bounds checks raises, other code reads beyond the array.
OUT_OF_BOUNDS = """
import numpy as np
from trimtab_server.solver.backends.cpu import rows

items, experts, out = np.array([[0, 2]], np.int32), np.zeros((1, 2), np.int32), np.zeros((1, 2))
try:
    rows.experts_in_slots(items, experts, out.astype(np.int64))
except IndexError:
    print("checked")
else:
    print("unchecked")
"""

FOLDERS = """
import os, sys
from numba.core import config
from trimtab_server.solver.backends.cpu import compiled

print(compiled._cache_folder())
for setting in sys.argv[1:]:
    name, _, value = setting.partition("=")
    os.environ[name] = value
    config.reload_config()
    print(compiled._cache_folder())
    del os.environ[name]
"""

CHANGE_CODE = (
    "NUMBA_BOUNDSCHECK=1",
    "NUMBA_BOUNDSCHECK=0",
    "NUMBA_OPT=0",
    "NUMBA_OPT=2",
    "NUMBA_OPT=max",
    "NUMBA_LOOP_VECTORIZE=0",
    "NUMBA_SLP_VECTORIZE=1",
    "NUMBA_LLVM_REFPRUNE_PASS=0",
    "NUMBA_LLVM_REFPRUNE_FLAGS=per_bb",
    "NUMBA_DEBUGINFO=1",
    "NUMBA_EXTEND_VARIABLE_LIFETIMES=1",
    "NUMBA_DEBUG_JIT=1",
    "NUMBA_DEBUG_NRT=1",
    "NUMBA_DEBUG_NRT_STACK_LIMIT=3",
    "NUMBA_CPU_NAME=generic",
)
CHANGE_NO_CODE = (
    "NUMBA_OPT=3",
    "NUMBA_COLOR_SCHEME=light_bg",
    "NUMBA_FULL_TRACEBACKS=1",
    "NUMBA_NUM_THREADS=1",
    "NUMBA_DEBUG_CACHE=1",
)


def printed(program: str, *arguments: str, cache: Path, home: Path, **other: str) -> list[str]:
    """The lines that a new process prints; it obeys permissions even if it runs as root."""
    environment = {name: value for name, value in os.environ.items() if "NUMBA" not in name}
    environment |= {"NUMBA_CACHE_DIR": str(cache), "HOME": str(home), **other}
    environment["PYTHONPATH"] = os.pathsep.join(("server", "protos"))
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT_OVERRIDE, "-W", "error", "-c", ALONE + program, *arguments],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stderr
    return ran.stdout.splitlines()


def new_places(folder: Path) -> dict[str, Path]:
    """New folders for the arguments of `printed`."""
    folders = {name: folder / name for name in ("cache", "home")}
    for path in folders.values():
        path.mkdir()
    return folders


_lock = Lock()


@cache
def _written() -> tuple[TemporaryDirectory[str], str]:
    folder = TemporaryDirectory(prefix="trimtab-")
    path = Path(folder.name)
    (line,) = printed(MAPPED, **new_places(path))
    assert line.endswith(" 0 1")
    return folder, line.split()[0]


def filled(places: dict[str, Path]) -> Path:
    """Fill the cache with what another process has written; returns the folder of the code."""
    with _lock:
        source, folder = _written()
    cache = Path(source.name) / "cache"
    shutil.copytree(cache, places["cache"], dirs_exist_ok=True)
    return places["cache"] / Path(folder).relative_to(cache)


def allow(folder: Path, mode: int) -> None:
    """Set the permissions of a folder and of all folders in it."""
    for path in (*folder.rglob("*"), folder):
        if path.is_dir():
            path.chmod(mode)


def test_each_setting_that_changes_code_has_a_folder_of_its_own(tmp_path: Path) -> None:
    places = new_places(tmp_path)
    settings = (*CHANGE_CODE, *CHANGE_NO_CODE)
    usual, *others = printed(FOLDERS, *settings, **places)
    of_setting = dict(zip(settings, others, strict=True))
    changing = {of_setting[setting] for setting in CHANGE_CODE}
    assert len(changing - {usual}) == len(CHANGE_CODE), of_setting
    assert {of_setting[setting] for setting in CHANGE_NO_CODE} == {usual}, of_setting


@pytest.mark.slow
def test_code_with_and_without_bounds_checks_is_kept_apart(tmp_path: Path) -> None:
    places = new_places(tmp_path)
    for _ in range(2):
        assert printed(OUT_OF_BOUNDS, **places) == ["unchecked"]
        assert printed(OUT_OF_BOUNDS, **places, NUMBA_BOUNDSCHECK="1") == ["checked"]


def test_code_is_kept_in_the_given_folder(tmp_path: Path) -> None:
    assert filled(new_places(tmp_path)).is_dir()


def test_a_read_only_cache_is_used(tmp_path: Path) -> None:
    places = new_places(tmp_path)
    kept = filled(places)
    cache, home = places["cache"], places["home"]
    allow(cache, 0o555)
    before = sorted(cache.rglob("*"))
    assert printed(MAPPED, **places) == [f"{kept} 1 0"]
    assert sorted(cache.rglob("*")) == before
    # The same in the user's own folder, if NUMBA_CACHE_DIR is empty.
    shutil.copytree(cache / "trimtab", home / ".cache" / "trimtab")
    allow(home, 0o555)
    mine = home / ".cache" / Path(kept).relative_to(cache)
    nowhere = home / "nowhere"
    assert printed(MAPPED, cache=nowhere, home=home) == [f"{mine} 1 0"]


def test_code_that_a_read_only_cache_lacks_is_compiled(tmp_path: Path) -> None:
    places = new_places(tmp_path)
    filled(places)
    allow(places["cache"], 0o555)
    before = sorted(places["cache"].rglob("*"))
    # Another function than the one in the cache.
    assert printed(OUT_OF_BOUNDS, **places) == ["unchecked"]
    assert sorted(places["cache"].rglob("*")) == before


def test_a_read_only_cache_with_code_for_another_machine_is_skipped(tmp_path: Path) -> None:
    places = new_places(tmp_path)
    printed(MAPPED, **places, NUMBA_CPU_NAME="generic")
    allow(places["cache"], 0o555)
    (line,) = printed(MAPPED, **places)
    assert line.startswith(str(places["home"]))
    assert list(places["home"].rglob("*.nbc"))


def test_a_cache_that_can_be_neither_read_nor_written_is_skipped(tmp_path: Path) -> None:
    places = new_places(tmp_path)
    filled(places)
    for file in places["cache"].rglob("*.nb?"):
        file.chmod(0)
    allow(places["cache"], 0o555)
    (line,) = printed(MAPPED, **places)
    assert line.startswith(str(places["home"]))


def test_a_call_is_answered_where_no_folder_can_be_made(tmp_path: Path) -> None:
    # Not even root can create a folder below a file.
    (tmp_path / "file").touch()
    (line,) = printed(MAPPED, cache=tmp_path / "file" / "cache", home=tmp_path / "file")
    assert line.startswith("None ")


AFTER = """
import os, resource, shutil
from trimtab_server.solver.backends.cpu import compiled, maps
{}
"""
BREAKS = {
    "full": "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))",
    "read-only": "[os.chmod(path, 0o555) for path, *_ in os.walk(compiled._CACHE)]",
    # An index that is a folder can be neither read nor replaced.
    "broken": "os.mkdir(maps.slot_maps._cache._cache_file._index_path)",
}


@pytest.mark.parametrize("how", BREAKS)
def test_a_call_is_answered_even_if_its_code_cannot_be_kept(tmp_path: Path, how: str) -> None:
    places = new_places(tmp_path)
    (line,) = printed(AFTER.format(BREAKS[how]) + MAPPED, **places)
    assert line.split()[1:] == ["0", "1"]
    assert not list(places["cache"].rglob("*.nbc"))


@pytest.mark.parametrize("ending", ["nbi", "nbc"])
@pytest.mark.parametrize("size", [0, 20])
def test_a_truncated_file_is_replaced(tmp_path: Path, ending: str, size: int) -> None:
    """A loss of power or an incomplete copy of an image leaves such files."""
    places = new_places(tmp_path)
    (file,) = filled(places).glob(f"maps.slot_maps*.{ending}")
    file.write_bytes(file.read_bytes()[:size])
    hits = [printed(MAPPED, **places)[0].split()[1:] for _ in range(2)]
    assert hits == [["0", "1"], ["1", "0"]]


def test_numbas_own_choice_of_folders_is_ignored(tmp_path: Path) -> None:
    """Those folders do not depend on the sources and settings that code depends on."""
    places = new_places(tmp_path)
    own = {"NUMBA_CACHE_LOCATOR_CLASSES": "InTreeCacheLocator"}
    (line,) = printed(MAPPED, **places, **own)
    assert line.startswith(str(places["cache"]))
    assert list(places["cache"].rglob("*.nbc"))


def test_a_deleted_cache_is_created_again(tmp_path: Path) -> None:
    places = new_places(tmp_path)
    (line,) = printed(AFTER.format("shutil.rmtree(compiled._CACHE)") + MAPPED, **places)
    assert line.split()[1:] == ["0", "1"]
    assert list(places["cache"].rglob("*.nbc"))
