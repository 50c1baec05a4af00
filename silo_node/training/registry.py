"""The computations of the exact model families, under the names that `policies.requests.families.SHAPES` has."""

from collections.abc import Mapping
from types import MappingProxyType

from policies.requests.networks import NETWORKS
from silo_node.training.families.anova import FAMILY as ANOVA
from silo_node.training.families.audit import FAMILY as AUDIT
from silo_node.training.families.chi_square import FAMILY as CHI_SQUARE
from silo_node.training.families.cox import FAMILY as COX
from silo_node.training.families.hashed import FAMILY as HASHED
from silo_node.training.families.k_means import FAMILY as K_MEANS
from silo_node.training.families.kaplan_meier import FAMILY as KAPLAN_MEIER
from silo_node.training.families.linear import FAMILY as LINEAR
from silo_node.training.families.logistic import FAMILY as LOGISTIC
from silo_node.training.families.multinomial import FAMILY as MULTINOMIAL
from silo_node.training.families.naive_bayes import FAMILY as NAIVE_BAYES
from silo_node.training.families.pca import FAMILY as PCA
from silo_node.training.families.poisson import FAMILY as POISSON
from silo_node.training.families.ridge import FAMILY as RIDGE
from silo_node.training.families.welch_t import FAMILY as WELCH_T
from silo_node.training.family import Family
from silo_node.training.networks.family import NETWORK

FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "linear-regression": LINEAR,
        "ridge-regression": RIDGE,
        "logistic-regression": LOGISTIC,
        "hashed-logistic": HASHED,
        "multinomial-regression": MULTINOMIAL,
        "poisson-regression": POISSON,
        "cox": COX,
        "kaplan-meier": KAPLAN_MEIER,
        "pca": PCA,
        "k-means": K_MEANS,
        "naive-bayes": NAIVE_BAYES,
        "welch-t": WELCH_T,
        "anova": ANOVA,
        "chi-square": CHI_SQUARE,
        "audit": AUDIT,
        **dict.fromkeys(NETWORKS, NETWORK),
    }
)
