"""Federations between organisations, with servers."""
