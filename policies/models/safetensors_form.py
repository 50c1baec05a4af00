"""A network's weights as a safetensors file, by the names of its graph, as the module that was packed loads them.

The file's metadata has the rest: the graph, the columns, and of which run it is. github.com/huggingface/safetensors
"""

import json
from collections.abc import Mapping

import numpy as np

from policies.errors import ModelError
from policies.models.network import SCHEMA, Network


def to_safetensors(model: Network, told: Mapping[str, str]) -> bytes:
    """Return the bytes of a file; `told` is what it says of its run. Raises ModelError without the package."""
    try:
        from safetensors.numpy import save
    except ImportError as err:
        raise ModelError("safetensors is not installed", 'pip install "consilo[train]"') from err
    weights = {name: np.ascontiguousarray(one) for name, one in model.tensors().items()}
    fields = model.model_dump(mode="json", exclude={"version", "weights", "graph", "classes", "columns"})
    metadata = {name: str(value) for name, value in fields.items()}
    metadata |= {
        "schema": SCHEMA,
        "classes": json.dumps(list(model.classes), ensure_ascii=False),
        "columns": json.dumps([one.model_dump(mode="json") for one in model.columns], ensure_ascii=False),
        "graph": model.graph.encode().decode(),
        "sha256 of graph": model.graph.digest,
        **told,
    }
    return save(weights, metadata)
