"""What outlives the server's process: one interface, and the stores behind it."""
