"""Packing a torch module as data: torch.export on the analyst's machine, and a graph of listed calls from it."""
