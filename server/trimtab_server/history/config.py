"""Settings of the history."""

from __future__ import annotations

from dataclasses import dataclass, field

from trimtab_server.setting import between, setting

NONE = "none"


@dataclass(frozen=True)
class HistoryConfig:
    """History of switches."""

    history: str = field(
        default=NONE,
        metadata=setting(
            "File to append the history of all switches to, or none. PROTOCOL.md says what is "
            "in it.",
        ),
    )
    history_bytes: int = field(
        default=1 << 30,
        metadata=setting(
            "Size at which the history's file is renamed to FILE.1, FILE.1 to FILE.2 and so on, "
            "and a new one begun. 0 never renames.",
            unit="bytes",
            rule=between(0, 1 << 50),
        ),
    )
    history_files: int = field(
        default=4,
        metadata=setting(
            "Renamed files of the history that are kept.", unit="files", rule=between(1, 1000)
        ),
    )
