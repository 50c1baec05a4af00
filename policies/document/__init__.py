"""The policy file of one silo: its sections, how it is read, checked, compared, signed and described."""
