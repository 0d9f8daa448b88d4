"""The store's errors.

StoreError                  it could not be done; the message names the store
├── StoreLockedError        another server has the store, or has taken it over
├── StoreSchemaError        the file is another program's, or a newer server's
└── StoreCorruptError       what is stored is not what was written
"""

from __future__ import annotations

from trimtab_server.domain.errors import TrimtabError


class StoreError(TrimtabError):
    """The store could not do what it was asked; the message names it, and says why."""


class StoreLockedError(StoreError):
    """Another server holds the store."""


class StoreSchemaError(StoreError):
    """The file belongs to another program, or to a newer version of this one."""


class StoreCorruptError(StoreError):
    """What is stored cannot be read, or is not what was written."""
