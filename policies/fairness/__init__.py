"""How far groups of persons differ in what is decided of them: counts by group, gaps, limits, and what mends them.

Pure, and of opened sums alone. A silo shows a model's audit by it, and an analyst judges one that policies release.
"""
