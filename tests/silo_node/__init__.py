"""A silo: its actor, its data, its ledger, and what its owner sees."""
