"""The aggregator: relays requests, adds blinded vectors, keeps encrypted reports. It can open none of them.

`python -m aggregator` starts it as a named Ray actor.
"""
