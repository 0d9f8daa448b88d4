"""Conversion between the protocol's values and the messages of the contract (package `trimtab`).

Pure, and the only part of this package that sees protobuf. What cannot be read raises a
MalformedError that names every field at fault by its path.
"""
