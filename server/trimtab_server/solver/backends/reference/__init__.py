"""The reference backend, in batched torch, which defines the answers."""
