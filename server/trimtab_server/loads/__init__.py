"""What workers report of their loads, as values."""
