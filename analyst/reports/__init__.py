"""From an opened sum to what a person reads."""
