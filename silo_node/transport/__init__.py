"""A silo's streams to the aggregators, and the calls over them."""
