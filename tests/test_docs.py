"""The documents say what is true: tables, snippets and paths are held against the code."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.servers import ServerProcess
from trimtab_server.config import sections
from trimtab_server.metrics.families import FAMILIES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
ENGINES = (ROOT / "ENGINES.md").read_text()
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text()


def settings_table() -> str:
    rows = ["| setting | default | what it does |", "|---|---|---|"]
    for section in sections():
        for option in section.options:
            unit = f" {option.about.unit}" if isinstance(option.default, int | float) else ""
            shown = str(option.default).lower() if option.default is not None else "none"
            default = f"{shown}{unit if option.kind is not bool else ''}".strip()
            rows.append(f"| `{option.name}` | {default} | {option.about.doc} |")
    return "\n".join(rows)


def metrics_table() -> str:
    rows = ["| metric | type | labels | meaning |", "|---|---|---|---|"]
    for family in FAMILIES:
        labels = ", ".join(family.labels)
        rows.append(f"| `{family.name}` | {family.kind} | {labels} | {family.help} |")
    return "\n".join(rows)


@pytest.mark.parametrize("table", [settings_table, metrics_table])
def test_the_readme_documents_every_setting_and_metric(table):
    assert table() in README, f"README.md needs this table:\n{table()}"


def blocks(language: str, document: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", document, re.MULTILINE | re.DOTALL)


LOOP, *OTHERS = blocks("python", ENGINES)


@pytest.mark.parametrize("snippet", [*blocks("python"), LOOP])
def test_the_snippets_of_the_readme_and_the_engines_loop_run(server: ServerProcess, snippet):
    assert "localhost:50051" in snippet
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", snippet.replace("localhost:50051", server.address)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize("snippet", OTHERS)
def test_the_other_snippets_for_engines_can_be_parsed_and_import_what_there_is(snippet):
    tree = ast.parse(snippet)
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert imports
    exec(compile(ast.Module(imports, []), "ENGINES.md", "exec"), {})  # noqa: S102


COMMANDS = [
    line.split("  #")[0].strip()
    for block in blocks("sh")
    for line in block.splitlines()
    if line.startswith(("trimtab ", "grpcurl "))
]
ALONE = [each for each in COMMANDS if " simulate " in each or " --local" in each]
TO_A_SERVER = [each for each in COMMANDS if each not in ALONE]


def run_command(command: str, folder: Path, server: str) -> None:
    program, *words = shlex.split(command, comments=True)
    arguments = [
        each for word in words for each in (sorted(folder.glob(word)) if "*" in word else [word])
    ]
    done = subprocess.run(
        [Path(sys.executable).with_name(program), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=folder,
        env={"TRIMTAB_SERVER": server},
    )
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    assert done.stdout


@pytest.mark.parametrize("command", TO_A_SERVER)
def test_the_commands_of_the_readme_run(server: ServerProcess, command: str) -> None:
    run_command(command.replace("localhost:50051", server.address), ROOT, server.address)


@pytest.mark.slow
@pytest.mark.concurrent
@pytest.mark.parametrize("command", ALONE)
def test_the_commands_of_the_readme_that_need_no_server_run(command: str) -> None:
    run_command(command, ROOT, "nowhere:1")


@pytest.mark.concurrent
def test_the_commands_for_engines_run(tmp_path: Path) -> None:
    (tmp_path / "my_engine.py").write_text(
        "from trimtab_tools.conformance.inprocess import make_group as make_group\n"
    )
    (tmp_path / "history.jsonl").write_text('{"kind": "started", "term": 1}\n')
    load = np.random.default_rng(0).integers(0, 1000, (2, 256))
    np.savez(tmp_path / "loads.npz", load=load)
    for rank in range(2):
        dump = {"logical_count": torch.from_numpy(load), "rank": rank}
        torch.save(dump, tmp_path / f"expert_distribution_recorder_1.5_{rank}.pt")
    lines = [line for block in blocks("sh", ENGINES) for line in block.splitlines()]
    ours = [line for line in lines if line.startswith("trimtab ")]
    assert len(ours) == 7
    for line in ours:
        run_command(line, tmp_path, "nowhere:1")


@pytest.mark.concurrent
def test_the_engines_own_test_runs(tmp_path: Path) -> None:
    (snippet,) = (snippet for snippet in OTHERS if "parametrize" in snippet)
    (tmp_path / "test_engine.py").write_text(snippet)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-k", "swap"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout
    assert "6 passed" in done.stdout


@pytest.mark.parametrize(
    "target", sorted(set(re.findall(r"(?:`|^)make ([a-z-]+)", README, re.MULTILINE)))
)
def test_every_make_target_that_is_named_exists(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize(
    "document",
    [
        "README.md",
        "ENGINES.md",
        "ARCHITECTURE.md",
        "PROTOCOL.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
    ],
)
def test_links_to_files_lead_somewhere(document):
    for link in re.findall(r"\]\(([^)#:]+)\)", (ROOT / document).read_text()):
        assert (ROOT / link).exists(), f"{document} links to {link}"


SOURCES = [
    str(path.relative_to(ROOT))
    for folder in ("protocol", "client", "server", "tools")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if path.name not in ("__init__.py", "__main__.py")
]


MAP = re.search(r"^## Map\n.*?^```\n(.*?)^```", ARCHITECTURE, re.MULTILINE | re.DOTALL)[1]


def test_the_map_names_every_folder_of_modules():
    folders = {Path(source).parent.name for source in SOURCES}
    shown = set(re.findall(r"([a-z_]+)/", MAP)) | set(re.findall(r"^ +([a-z]+), [a-z]", MAP))
    assert not folders - shown - {"deployments", "reference", "cpu", "cuda"}


def test_the_map_names_no_module_that_is_gone():
    named = set(re.findall(r"(?<![*\w])[a-z_]+\.py", MAP))
    assert named
    assert not named - {Path(source).name for source in SOURCES} - {"__init__.py"}


def test_every_module_says_in_its_first_line_what_it_is_for():
    """The map shows where to look first; the modules themselves say the rest."""
    silent = [
        source
        for source in SOURCES
        if not (ast.get_docstring(ast.parse((ROOT / source).read_text())) or "").split("\n")[0]
    ]
    assert not silent
