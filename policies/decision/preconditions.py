"""The denials of a silo before the rules of its policy are asked: who signed, and what this silo has seen already."""

from policies.decision.denial_codes import deny
from policies.document.policy import Policy
from policies.requests.denials import Denial


def unknown_analyst(policy: Policy, name: str) -> Denial:
    """Return the denial of a request by somebody whom the policy does not name."""
    message = f"{name[:120]!r} is not an analyst here"
    return deny("ANALYST_UNKNOWN", "analysts", message, f"ask {policy.silo.contact}")


def wrong_signature(policy: Policy, name: str) -> Denial:
    """Return the denial of a request that was signed by another key than the policy gives its analyst."""
    message = "the request is not signed with the key that the policy names"
    return deny("SIGNATURE", f"analysts.{name}.key", message, f"ask {policy.silo.contact} to update it")


def already_answered() -> Denial:
    """Return the denial of a request whose contribution has left."""
    return deny("ALREADY_ANSWERED", "budget", "this very request was answered before", "sign a new request")


def too_many_retries() -> Denial:
    """Return the denial of a request that was accepted as often as it can be."""
    message = "this very request was accepted too often without an answer"
    return deny("RETRIES", "budget", message, "sign a new request")


def wrong_position(message: str) -> Denial:
    """Return the denial of a training step that is not the next one of its run at this silo."""
    return deny("RUN_POSITION", "training", message, "deliver the reports that it missed, or begin a new run")
