"""What an engine has to do for a switch: the contract, a reference, and a test of both.

`ENGINES.md` is the contract in prose.
"""
