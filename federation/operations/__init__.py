"""How the programs of a federation are run on a machine."""
