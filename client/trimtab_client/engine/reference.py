"""An engine's rank over numpy weights: the adapter to read before writing one."""
