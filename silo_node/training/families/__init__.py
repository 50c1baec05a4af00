"""The computations of the exact model families, one module each; `silo_node.training.registry` lists them."""
