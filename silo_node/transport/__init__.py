"""The streams that a silo keeps to the aggregators, and what it carries over them."""
