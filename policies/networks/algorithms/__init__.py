"""The algorithms that train a network across silos, one in each file, and their registry."""
