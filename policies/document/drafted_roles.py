"""In which roles a draft opens the columns of which something is public knowledge; a person may write others."""

import difflib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from policies.errors import PolicyError

FEATURE, LABEL, AUDIT = "feature", "label", "audit"


@dataclass(frozen=True, slots=True)
class Opening:
    """What drafts open columns for: questions, or models too, by their labels; or models alone, of exact sources."""

    is_training: bool = False
    has_exact_data: bool = False
    labels: tuple[str, ...] = ()  # keys of columns that a model predicts, or times and events
    audited: tuple[str, ...] = ()  # keys of columns whose values are the groups of an audit

    def roles(self, key: str, type_: str, said: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the roles of a column of which so much is said; none if that is not enough."""
        found = self._usual(key, type_, said)
        return (*found, AUDIT) if found and key in self.audited else found

    def _usual(self, key: str, type_: str, said: Mapping[str, Any]) -> tuple[str, ...]:
        if key in self.labels:
            return (LABEL,)
        if type_ == "array":
            return (FEATURE,) if self.is_training and "bounds" in said else ()
        has_domain = said.get("domain") is not None or "domain_file" in said
        feature = (FEATURE,) if self.is_training else ()
        if "granularity" in said:
            return () if self.has_exact_data else ("dimension", "filter")
        if has_domain:
            return feature if self.has_exact_data else ("dimension", "filter", *feature)
        if type_ == "bool" or "bounds" in said:
            return feature if self.has_exact_data else ("measure", "filter", *feature)
        return ()


def check_labels(
    labels: Iterable[str],
    keys: Mapping[str, Collection[str]],
    ids: Mapping[str, str | None],
    is_everywhere: bool,
    what: str = LABEL,
) -> None:
    """Raise PolicyError unless a silo, or with `is_everywhere` each one, has a column of each label's key, no id.

    `what` is what the columns are called where they are no labels.

    `keys` are those of the columns that each silo has, `ids` the columns that say whose row it is.
    """
    for label in labels:
        if any(label == name for name in ids.values()):
            raise PolicyError(f"the {what} {label!r} says whose row it is", f"name another {what}")
        without = [silo for silo, known in keys.items() if label not in known]
        if len(without) == len(keys):
            known = sorted({key for found in keys.values() for key in found})
            near = difflib.get_close_matches(label, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"columns: {', '.join(known)[:300]}"
            raise PolicyError(f"no file has a column {label!r}, the {what}", hint)
        if without and is_everywhere:
            hint = f'say what it is called there, in the file of columns: {label} = {{ ..., from = ["..."] }}'
            raise PolicyError(f"the {what} {label!r} is not at {', '.join(without)}", hint)
