"""Values: topology, placement, balance, moves; and the errors they raise."""
