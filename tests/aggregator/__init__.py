"""What the aggregator keeps and adds."""
