"""Find the keys of a text column that nobody has listed: read the rounds of a search, run them, write the domain."""
