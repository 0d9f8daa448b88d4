"""Prometheus metrics: what they are, who records them, and where they can be read."""
