"""The worker's side of the coordinated switch (PROTOCOL.md)."""
