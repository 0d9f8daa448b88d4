"""The Trimtab server: expert placement as a service."""
