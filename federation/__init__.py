"""The ground that every role stands on: who belongs to a federation, how it is founded, joined and run."""
