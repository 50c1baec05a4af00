"""What `make audit` and `make release` do."""
