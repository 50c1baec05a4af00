"""Policies, requests, decisions and privacy accounting: what may be asked, for which purpose, at what price.

It imports `crypto` for the wire format and the terms of a round, and no role.
"""
