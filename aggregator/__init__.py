"""The aggregator: it relays requests, adds blinded vectors and keeps encrypted reports, and cannot open any of them.

`python -m aggregator` starts it as a named Ray actor.
"""
