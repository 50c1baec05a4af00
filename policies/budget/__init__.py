"""What requests cost a person, and what a ledger promises about it."""
