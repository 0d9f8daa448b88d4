"""Private wire helpers; not part of the contract."""
