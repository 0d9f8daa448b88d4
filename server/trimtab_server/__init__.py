"""The Trimtab server: expert placement as a service."""

__version__ = "0.1.0"
