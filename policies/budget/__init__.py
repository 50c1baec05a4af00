"""The price of a request for one person, and the promises of a ledger."""
