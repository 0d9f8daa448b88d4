"""Implementations of the solver's work on arrays, behind one interface."""
