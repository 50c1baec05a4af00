"""The uses of networks that docs/training.md shows: their data, and each job run across silos."""
