"""The Trimtab client."""
