"""A silo's own rows: where they are, how they are read, who consented, and what is computed on them."""
