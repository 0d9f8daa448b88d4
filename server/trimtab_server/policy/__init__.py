"""Whether to move experts now, and how far: pure functions of what is known."""
