"""What a fleet reads in its server's log."""

from __future__ import annotations

from pathlib import Path

import pytest

from trimtab_tools.simulate.fleet_state import FleetState
from trimtab_tools.simulate.options import FleetOptions
from trimtab_tools.simulate.processes import Processes
from trimtab_tools.simulate.server import ServerProcess

SERVER = r"""
import os, time
os.write(2, b'Traceback\n[1]\n3\nnull\n\xff\xfe\n{"event": 1}\n{"event": "alarm"}\n')
os.write(2, b'{"event": "ready", "address": "127.0.0.1:1"}\n')
time.sleep(600)
"""


@pytest.mark.process
def test_lines_that_are_no_events_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    package = tmp_path / "path" / "trimtab_server"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(SERVER)
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    folder = tmp_path / "folder"
    folder.mkdir()
    processes, state = Processes(folder), FleetState(FleetOptions(ranks=1))
    try:
        server = ServerProcess(processes, tmp_path / "history", (), state)
        server.start()
        server.wait_ready(600.0)
        assert server.address == "127.0.0.1:1"
        assert server.alarms == [""]
    finally:
        processes.close()
