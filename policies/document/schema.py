"""The JSON schema of policy files, made from the models, so that editors can check a policy while a person writes it.

`python -m policies.document.schema` writes it again. A TOML editor finds it by the line `#:schema policy.schema.json`.
"""

import json
from pathlib import Path
from typing import Any

from policies.document.policy import Policy

_BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}
FILE = Path(__file__).parents[1] / "policy.schema.json"


def schema() -> str:
    """Return the JSON schema of a policy file."""
    made = _plain(Policy.model_json_schema(by_alias=True))
    made = {"$schema": "https://json-schema.org/draft/2020-12/schema", **made, "title": "Consilo silo policy"}
    return json.dumps(made, indent=1, sort_keys=True) + "\n"


def _plain(node: Any) -> Any:
    """Return a schema in TOML's terms: a decimal is a number, never text, and no value is null."""
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if not isinstance(node, dict):
        return node
    found = {key: _plain(item) for key, item in node.items() if not (key == "default" and item is None)}
    for key, name in _BOUNDS.items():
        if key in found:
            found[name] = float(found.pop(key))
    if "anyOf" in found:
        options = [one for one in found.pop("anyOf") if one.get("type") != "null"]
        if any(one.get("type") == "number" for one in options):
            options = [one for one in options if one.get("type") not in ("integer", "string")]
        found = {**found, **options[0]} if len(options) == 1 else {**found, "anyOf": options}
    return found


if __name__ == "__main__":
    FILE.write_text(schema())
