"""The shipped networks by the names of their families."""

from collections.abc import Mapping
from types import MappingProxyType

from policies.networks.shipped.autoencoder import AUTOENCODER
from policies.networks.shipped.cnn import CNN
from policies.networks.shipped.language_model import LANGUAGE_MODEL
from policies.networks.shipped.mlp import MLP
from policies.networks.shipped.recommender import RECOMMENDER
from policies.networks.shipped.shipped import Shipped

SHIPPED: Mapping[str, Shipped] = MappingProxyType(
    {
        "mlp": MLP,
        "cnn": CNN,
        "recommender": RECOMMENDER,
        "language-model": LANGUAGE_MODEL,
        "autoencoder": AUTOENCODER,
    }
)
