"""What the owner of a silo's data sees and does."""
