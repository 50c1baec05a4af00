"""One silo's part in a round, as pure steps."""
