"""Benchmarks: `python -m tests.bench`. Not collected by pytest."""
