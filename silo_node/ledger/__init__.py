"""A silo's ledger and log in one SQLite file; the aggregators keep its checkpoints. docs/ledger.md."""
