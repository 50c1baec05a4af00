"""A silo's rows and decisions on consent, read once and kept as numbers."""
