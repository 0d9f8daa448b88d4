"""What needs a GPU: `python -m tests.gpu`. Not collected by pytest."""
