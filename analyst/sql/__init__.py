"""SQL on the analyst's side: sqlglot parses it, and rules turn it into a plan. SQL never leaves the analyst."""
