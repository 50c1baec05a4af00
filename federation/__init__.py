"""Membership, connections and operations: what every role needs to run between organisations.

`authority` and `joining` found a federation between organisations and admit its members; `founding` makes a simulated
one in a directory, and `local` runs it in one Ray cluster. `members` has the membership, `transport` carries calls
between members, `operations` runs a party's own processes and shows them to its operator, `web` serves pages on this
machine. The package imports `crypto`, and neither policies nor roles.
"""
