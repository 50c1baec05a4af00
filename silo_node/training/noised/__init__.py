"""Model families with noise: sums of persons' clipped parts, and what is computed of opened sums alone."""
