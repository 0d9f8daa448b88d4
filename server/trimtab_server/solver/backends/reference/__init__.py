"""The backend that defines the answers, in batched torch."""
