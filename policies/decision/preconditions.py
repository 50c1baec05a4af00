"""The denials that precede the rules of a policy: a wrong signer, and a request that the silo has seen before."""

from policies.budget.ledger import RunOver
from policies.decision.denial_codes import deny
from policies.document.policy import Policy
from policies.requests.denials import Denial


def unknown_analyst(policy: Policy, name: str) -> Denial:
    """Return the denial of a request by an analyst that the policy does not name."""
    message = f"{name[:120]!r} is not an analyst here"
    return deny("ANALYST_UNKNOWN", "analysts", message, f"ask {policy.silo.contact}")


def wrong_signature(policy: Policy, name: str) -> Denial:
    """Return the denial of a request that was signed with another key than the policy has for its analyst."""
    message = "the request is not signed with the key that the policy names"
    return deny("SIGNATURE", f"analysts.{name}.key", message, f"ask {policy.silo.contact} to update it")


def already_answered() -> Denial:
    """Return the denial of a request whose contribution has left, or may leave."""
    return deny("ALREADY_ANSWERED", "budget", "this very request was answered before", "sign a new request")


def asked_before() -> Denial:
    """Return the denial of a step without noise for a model for which a contribution has left before."""
    message = "a contribution to this step has left, or may have, and without noise none leaves twice for one model"
    return deny("RUN_POSITION", "training", message, "begin a new run")


def replaced() -> Denial:
    """Return the denial of a request in whose place the silo has accepted another."""
    remedy = "send that request again, or sign a new one"
    return deny("REPLACED", "budget", "another request took the place of this one", remedy)


def first_was_answered() -> Denial:
    """Return the denial of a request in the place of one whose contribution has left, or may leave."""
    message = "the request that this one replaces was answered before, so its charge stands"
    return deny("ALREADY_ANSWERED", "budget", message, "sign a new request that replaces none")


def first_was_replaced() -> Denial:
    """Return the denial of a request in a place that the silo has accepted another one for."""
    message = "another request took the place of the one that this one replaces, or of the run that it continues"
    return deny("REPLACED", "budget", message, "send that request again, or sign a new one that replaces none")


def too_many_retries() -> Denial:
    """Return the denial of a request that was accepted too often already."""
    message = "this very request was accepted too often without an answer"
    return deny("RETRIES", "budget", message, "sign a new request")


def signed_before() -> Denial:
    """Return the denial of a request from before a backup was put back, which may have been charged."""
    message = "it was signed before this silo's ledger was put back from a backup, and may have been answered"
    return deny("REQUEST_EXPIRED", "request.created_at", message, "sign a new request")


def run_is_over(why: RunOver) -> Denial:
    """Return the denial of a step of a training run that was stopped, given up, or lay too long."""
    message = {
        "abandoned": "this training run was given up by its analyst",
        "expired": "this training run has lain for more than 30 days, and what it had reserved was given back",
    }.get(why, f"this training run is at its end: {why}")
    return deny("RUN_OVER", "training", message, "begin a new run: its price is reserved anew")


def wrong_position(message: str, remedy: str = "") -> Denial:
    """Return the denial of a training step that is not the next one of its run here, or of a model that is not judged.

    Without a `remedy` it is that of a silo which missed reports.
    """
    missed = "give the same command again, which hands it the reports that it missed; or begin a new run"
    return deny("RUN_POSITION", "training", message, remedy or missed)
