"""Random questions: what Consilo answers without noise, beside DuckDB over the rows of all silos."""
