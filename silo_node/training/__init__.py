"""Training at a silo: what it contributes to a step, and the model that it learns from an opened sum."""
