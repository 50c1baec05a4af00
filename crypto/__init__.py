"""Secure sums: what a silo sends, and what a recipient needs to open the sum.

The lowest layer: it imports none of the other packages. `docs/protocol.md` is the specification.
"""
