"""The server's side of the coordinated switch: events in, effects out (PROTOCOL.md)."""
