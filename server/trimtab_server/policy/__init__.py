"""Policies: pure functions that decide whether experts move now, and how many."""
