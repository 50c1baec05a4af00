"""SQL on the analyst's side: parsed by sqlglot, planned into the wire vocabulary. SQL never crosses the boundary."""
