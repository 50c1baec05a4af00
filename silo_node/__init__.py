"""A silo: keeps its rows, judges requests by its policy, answers with blinded vectors.

`python -m silo_node` starts silos as named Ray actors; `consilo-silo` is the data owner's command.
"""
