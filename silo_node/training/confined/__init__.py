"""Networks at a silo, computed in a process of their own that can open, connect and start nothing."""
