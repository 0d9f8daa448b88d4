"""The backend for the CPU: loops compiled by Numba, over threads of its own."""
