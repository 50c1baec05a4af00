"""Train a model across silos, from the analyst's side."""
