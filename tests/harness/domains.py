"""A federation of hospitals whose column `survival` is a dimension, with a long domain in a file beside each policy."""

from pathlib import Path

from policies.domains import hash_of

FILE = "days.txt"
COLUMN = 'roles = ["measure", "filter"], bounds = [0, 1100]'
GROUPED = "SELECT survival, COUNT(*) AS n FROM lung GROUP BY survival"


def days(size: int) -> list[int]:
    """Return a domain of so many days, with -1 for those that are not known."""
    return [-1, *range(size - 1)]


def lengthen(home: Path, size: int) -> None:
    """Give `survival` a domain of this size, and let answers have as many groups, of at least two patients."""
    values = days(size)
    stated = f'domain_file = "{FILE}", domain_hash = "{hash_of(values)}", unknown = -1'
    changes = {
        COLUMN: f'roles = ["measure", "filter", "dimension"], bounds = [0, 1100], {stated}',
        "max_groups     = 100": f"max_groups     = {size}",
        "min_cohort     = 25": "min_cohort     = 2",
    }
    for policy in home.glob("silos/*/policy.toml"):
        text = policy.read_text()
        for old, new in changes.items():
            assert old in text, f"the hospitals' policy has no {old!r}"
            text = text.replace(old, new)
        policy.write_text(text)
        policy.with_name(FILE).write_text("".join(f"{value}\r\n" for value in values), newline="")
