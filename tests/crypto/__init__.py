"""Keys, sharings, sums and their backends, by themselves."""
