"""Whole rounds, of all sides together: honest ones, and attacks."""
