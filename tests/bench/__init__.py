"""Benchmarks: `python -m tests.bench NAME` runs one and writes its figures. Not run by pytest."""
