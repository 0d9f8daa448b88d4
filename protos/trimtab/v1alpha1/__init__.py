"""The contract of sessions, generated from the .proto files beside it."""
