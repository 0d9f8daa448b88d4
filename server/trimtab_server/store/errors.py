"""The errors of stores.

StoreError                  an operation failed; the message names the store
├── StoreLockedError        another server uses the store, or has taken it over
├── StoreSchemaError        the file belongs to another program or to a newer server
└── StoreCorruptError       the stored data differs from what was written
"""

from __future__ import annotations

from trimtab_server.domain.errors import TrimtabError


class StoreError(TrimtabError):
    """An operation of a store failed; the message names the store and the reason."""


class StoreLockedError(StoreError):
    """Another server uses the store."""


class StoreSchemaError(StoreError):
    """The file belongs to another program, or to a newer version of this one."""


class StoreCorruptError(StoreError):
    """The stored data cannot be read, or differs from what was written."""
