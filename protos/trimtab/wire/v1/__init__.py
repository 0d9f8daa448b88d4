"""Copies of standard messages that the client reads; see standard.proto."""
