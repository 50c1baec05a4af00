"""What a policy says, and what is decided by it."""
