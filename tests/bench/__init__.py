"""Benchmarks: `python -m tests.bench.NAME` prints one JSON object a line. Not run by pytest."""
