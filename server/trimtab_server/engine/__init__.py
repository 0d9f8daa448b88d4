"""Deployments, and the jobs of the solver for many callers at once. On the event loop; no gRPC."""
