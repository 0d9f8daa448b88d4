"""Runs the solver for many callers at once: limits, queue, deadlines, streams. No gRPC."""
