"""Training at a silo: its contribution to a step, and the model that it learns from an opened sum."""
