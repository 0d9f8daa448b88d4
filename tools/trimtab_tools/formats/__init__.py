"""Files with expert loads and placements, of Trimtab and of inference engines.

Which format a file has follows from the end of its name, from a name that the user gives, or from
the names in the file: `read_load`, `read_placement` and `write_placement` know all formats.
"""

from trimtab_tools.formats.files import (
    FORMATS,
    check_output,
    names_layers,
    read_load,
    read_placement,
    write_placement,
)
from trimtab_tools.formats.layout import NoSuchArrayError, SavedPlacement

__all__ = [
    "FORMATS",
    "NoSuchArrayError",
    "SavedPlacement",
    "check_output",
    "names_layers",
    "read_load",
    "read_placement",
    "write_placement",
]
