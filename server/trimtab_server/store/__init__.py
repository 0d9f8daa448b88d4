"""Durable storage: one interface, and two implementations."""
