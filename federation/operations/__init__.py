"""How a party runs its own processes: the settings of its Ray cluster, and the checks before it starts."""
