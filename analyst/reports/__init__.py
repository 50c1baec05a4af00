"""Reports: from an opened sum to the text that a person reads."""
