"""Faults of one party at every state of a round: the table, what inflicts them, and the judge."""
