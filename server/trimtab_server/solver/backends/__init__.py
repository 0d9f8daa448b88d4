"""Implementations of the solver's computations on arrays, behind one interface."""
