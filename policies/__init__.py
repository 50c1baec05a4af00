"""What may be asked, of whom, for which purpose and at what price: policies, requests, decisions, accounting.

Stands on `crypto` for the wire format and for what a round fixes; imports no role.
"""
