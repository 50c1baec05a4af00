"""What all parties of a federation share: members, the transport between them, and how their processes run."""
