"""Who belongs to a federation: roster, membership log, admission, certificates and credentials."""
