"""Secure sums: what a silo submits and what a recipient needs to open it.

The ground floor: imports nothing of the other packages. `docs/protocol.md` is the specification.
"""
