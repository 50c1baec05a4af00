"""Networks at a silo: the interpreter of graphs, local training, and each algorithm's part of a round."""
