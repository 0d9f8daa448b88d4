"""A minimal fleet: worker processes with real weights, a real barrier, and faults on demand.

`Fleet` is the library's way in, `trimtab simulate` that of the command line.
"""
