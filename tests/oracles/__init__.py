"""Slow, obvious versions of the solver's parts: loops over Python integers, no torch."""
