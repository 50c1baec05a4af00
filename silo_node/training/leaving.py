"""May a model leave, be used, or be exported? The one place where a policy's conditions on models are checked."""

from typing import Literal

from policies.document.policy import Policy
from silo_node.errors import SiloError
from silo_node.training.run import RunState

Way = Literal["release", "predict", "export"]
TO_ANALYST = "model-to-analyst"


def may_leave(policy: Policy, state: RunState, way: Way) -> None:
    """Raise SiloError, with a remedy, if a model may not leave the silo in this way by the policy of today.

    `release` sends it to the analyst, `predict` applies it to rows, `export` writes it to a file of the owner's.
    """
    if way == "release" and TO_ANALYST not in policy.disclosure.release:
        raise SiloError(
            "the model may not leave to the analyst", f'write "{TO_ANALYST}" into disclosure.release of the policy'
        )
