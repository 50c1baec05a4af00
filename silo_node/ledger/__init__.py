"""A silo's ledger of what it spent and its log of what it did: one SQLite file, with checkpoints kept elsewhere."""
