"""A simulated fleet: worker processes with real weights, a real barrier, and faults on demand.

Programs use `Fleet`; the command line uses it through `trimtab simulate`.
"""
