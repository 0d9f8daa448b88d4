"""Loads: pure functions and values that turn workers' reports into load estimates."""
