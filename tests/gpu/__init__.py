"""Checks and measurements that need a GPU: `python -m tests.gpu`. Not collected by pytest."""
