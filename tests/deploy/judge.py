"""Judge what is given on standard input by Helm, by Kubernetes' own schemas and by a parser of PromQL.

It runs in a process of its own, `python -m tests.deploy.judge TOOL`, as what it imports is no dependency:
`make deploy-check` fetches it. Input and output are JSON.
"""

import json
import sys
from typing import Any

RELEASE, NAMESPACE = "aspen", "north"
KUBERNETES = ("1.29", "1.33", "1.37")


def charts(chart: str, cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Lint and render a chart with each set of values, as `helm lint --strict` and `helm template` do."""
    import helm_python

    found = []
    for values in cases:
        try:
            loaded = helm_python.Chart.load(chart)
            loaded.validate_schema(loaded.merge_values(values))
            report = helm_python.lint(chart, values, strict=True, namespace=NAMESPACE)
            errors = [*report["errors"], *(one["error"] for one in report["messages"] if one["severity"] > 1)]
            rendered = loaded.render(values, name=RELEASE, namespace=NAMESPACE)
        except helm_python.HelmError as err:
            errors, rendered = [str(err)], {}
        found.append({"errors": errors, "files": rendered})
    return found


def objects(given: list[dict[str, Any]]) -> list[str]:
    """Return what Kubernetes' schemas, strictly read, have against objects."""
    import kubernetes_validate

    problems = []
    for version in KUBERNETES:
        for one in given:
            try:
                kubernetes_validate.validate(one, version, strict=True)
            except kubernetes_validate.ValidationError as err:
                problems.append(f"{one['kind']} {one['metadata']['name']}, Kubernetes {version}: {err}")
    return problems


def expressions(given: list[str]) -> list[str]:
    """Return the expressions of PromQL that do not parse, and why."""
    import promql_parser

    problems = []
    for one in given:
        try:
            promql_parser.parse(one)
        except ValueError as err:
            problems.append(f"{one}: {err}")
    return problems


def main() -> None:
    tool, given = sys.argv[1], json.load(sys.stdin)
    answer: object
    match tool:
        case "charts":
            answer = charts(sys.argv[2], given)
        case "objects":
            answer = objects(given)
        case _:
            answer = expressions(given)
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
