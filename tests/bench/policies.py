"""What a policy costs: to read and check one, and to judge a request by it.

Run: python -m tests.bench.policies
"""

import time
from collections.abc import Callable
from pathlib import Path

import policies.decide
from crypto.wire import digest_of
from policies.decide import decide
from policies.ledger import Spending
from policies.load import parse
from tests.bench.figures import publish
from tests.example_policy import NOW, policy, request

EXAMPLES = Path(policies.decide.__file__).parent / "examples"
RUNS = 15


def main() -> None:
    load_validate()
    decide_again()
    decide_new()


def load_validate() -> None:
    """Read and check the longest of the three examples, from its bytes."""
    raw = max((path.read_bytes() for path in EXAMPLES.glob("*.toml")), key=len)
    publish("load_validate", _timed(lambda: parse(raw, "policy.toml"), 50, 1e3), "ms")


def decide_again() -> None:
    """Judge a request by a policy that was used before: the figure of the requirement, in decisions a second."""
    by, asked = policy(), request()
    digest = digest_of(asked)
    spending = [Spending(spent) for spent in range(0, 900_000, 9_000)]  # the ledger differs every time
    turns = iter(range(1 << 40))
    seconds = _timed(lambda: decide(by, asked, digest, spending[next(turns) % 100], NOW), 5_000, 1.0)
    publish("decide", [1 / one for one in seconds], "1/s")


def decide_new() -> None:
    """Judge requests that were never seen before, so that nothing that follows from a request is at hand."""
    by, spent = policy(), Spending(0)
    found = []
    for _ in range(RUNS):
        asked = [request(nonce=number.to_bytes(16, "big")) for number in range(1_000)]
        began = time.perf_counter()
        for one in asked:
            decide(by, one, bytes(32), spent, NOW)
        found.append(1_000 / (time.perf_counter() - began))
    publish("decide_new_requests", found, "1/s")


def _timed(step: Callable[[], object], times: int, scale: float) -> list[float]:
    """Return how long one step takes, in seconds times `scale`, once for each run."""
    found = []
    for _ in range(RUNS):
        began = time.perf_counter()
        for _ in range(times):
            step()
        found.append((time.perf_counter() - began) / times * scale)
    return found


if __name__ == "__main__":
    main()
