"""Settings of the history."""

from __future__ import annotations

from dataclasses import dataclass

from trimtab_server.setting import between, setting

NONE = "none"


@dataclass(frozen=True)
class HistoryConfig:
    """History of switches."""

    history: str = setting(
        NONE,
        "File to append the history of all switches to, or none. PROTOCOL.md says what is in it.",
    )
    history_bytes: int = setting(
        1 << 30,
        "Size at which the history's file is renamed to FILE.1, FILE.1 to FILE.2 and so on, "
        "and a new one begun. 0 never renames.",
        unit="bytes",
        rule=between(0, 1 << 50),
    )
    history_files: int = setting(
        4, "Renamed files of the history that are kept.", unit="files", rule=between(1, 1000)
    )
