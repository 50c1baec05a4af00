"""The owner's side of a silo: the command `consilo-silo` and the page on this machine."""
