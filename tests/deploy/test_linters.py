"""Linters that packages offer judge deploy/: `make deploy-check` fetches them; without them these tests are skipped.

`promtool` is looked for among the machine's own programs.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.deploy.reading import CHART, DEPLOY, ROOT, TOOLS, expressions, pods, read_all

PLAIN_YAML = [
    *(DEPLOY / name for name in ("compose.yaml", "prometheus", "kuberay")),
    *(CHART / name for name in ("Chart.yaml", "values.yaml")),
]
STYLE = {
    "extends": "default",
    "rules": {
        "line-length": {"max": 125},
        "document-start": "disable",
        "comments": {"min-spaces-from-content": 1},
        "braces": {"max-spaces-inside": 1},
    },
}
AGGREGATORS = [{"cidr": "192.0.2.10/32", "port": 8443}, {"namespace": "hub", "port": 8443}]
SILO = {"network": {"aggregators": AGGREGATORS}}
CASES: list[dict[str, Any]] = [
    SILO,
    {**SILO, "serve": False},
    {**SILO, "monitoring": {"namespace": "monitoring", "serviceMonitor": True}, "stopSeconds": 400},
    {**SILO, "home": {"existingClaim": "aspen"}, "databases": {"existingSecret": "aspen-databases"}},
    {"network": {"aggregators": AGGREGATORS[:1], "databases": [{"cidr": "192.0.2.20/32", "port": 5432}]}},
    {"role": "aggregator", "home": {"size": "50Gi", "storageClass": "fast"}},
    {"role": "aggregator", "service": {"type": "NodePort", "sourceRanges": ["192.0.2.0/24"]}},
]
REFUSED: dict[str, dict[str, Any]] = {
    "network.aggregators": {},
    "role": {"role": "analyst"},
    "rol": {"rol": "silo"},
    "port": {"network": {"aggregators": [{"cidr": "192.0.2.10/32", "port": 0}]}},
    "cidr": {"network": {"aggregators": [{"cidr": "hub.example", "port": 8443}]}},
}
pytestmark = [pytest.mark.process, pytest.mark.timeout(170)]
fetched = pytest.mark.skipif(not TOOLS.is_dir(), reason="the linters are not here: `make deploy-check` fetches them")
promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="there is no promtool")


def run(*command: "str | Path", given: object = None) -> str:
    """Run a fetched program; the test fails with what it says if it fails."""
    path = f"{TOOLS / 'bin'}:{os.environ['PATH']}"
    done = subprocess.run(
        [str(one) for one in command],
        input=None if given is None else json.dumps(given),
        text=True,
        capture_output=True,
        timeout=120,
        cwd=ROOT,
        env={**os.environ, "PATH": path, "PYTHONPATH": f"{TOOLS}:{ROOT}"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def judged(tool: str, given: object, *more: "str | Path") -> Any:
    return json.loads(run(sys.executable, "-m", "tests.deploy.judge", tool, *more, given=given))


@fetched
def test_yamllint_finds_nothing() -> None:
    assert run(sys.executable, "-m", "yamllint", "--strict", "-d", json.dumps(STYLE), *PLAIN_YAML) == ""


@fetched
def test_the_container_file_passes_hadolint() -> None:
    assert run(TOOLS / "bin" / "hadolint", DEPLOY / "Containerfile") == ""


@fetched
def test_the_compose_file_is_of_the_compose_specification() -> None:
    run(sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", DEPLOY / "compose.yaml")


@fetched
def test_helm_renders_objects_that_kubernetes_knows() -> None:
    found = judged("charts", CASES, CHART)
    objects = []
    for case, one in zip(CASES, found, strict=True):
        assert one["errors"] == [], case
        for name, text in one["files"].items():
            if name.endswith(".yaml"):
                objects += [made for made in yaml.safe_load_all(text) if made is not None]
    kinds = {one["kind"] for one in objects}
    assert kinds == {"StatefulSet", "Service", "NetworkPolicy", "ServiceMonitor"}
    assert judged("objects", [one for one in objects if one["kind"] != "ServiceMonitor"]) == []


@fetched
def test_helm_refuses_values_that_would_not_work_and_names_them() -> None:
    for (word, values), one in zip(REFUSED.items(), judged("charts", list(REFUSED.values()), CHART), strict=True):
        assert one["files"] == {}, values
        assert any(word in error for error in one["errors"]), (word, one["errors"])


@fetched
def test_what_the_chart_lets_a_role_dial() -> None:
    silo, aggregator = judged("charts", [SILO, {"role": "aggregator"}], CHART)
    policies = [
        yaml.safe_load(one["files"]["consilo/templates/networkpolicy.yaml"])["spec"] for one in (silo, aggregator)
    ]
    first, second, names = policies[0]["egress"]
    assert first == {"to": [{"ipBlock": {"cidr": "192.0.2.10/32"}}], "ports": [{"port": 8443}]}
    assert second["to"][0]["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": "hub"}}
    assert second["to"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "aggregator"
    assert {one["port"] for one in names["ports"]} == {53}
    assert [[port["port"] for port in one["ports"]] for one in policies[0]["ingress"]] == [["probes"]]
    assert policies[1]["egress"] == []
    assert [[port["port"] for port in one["ports"]] for one in policies[1]["ingress"]] == [["probes"], ["streams"]]


@fetched
def test_the_nodes_of_the_ray_cluster_are_pods_that_kubernetes_knows() -> None:
    made = [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec} for name, spec in pods().items()
    ]
    assert judged("objects", [*made, *read_all("kuberay", "silo-cluster.yaml")[1:]]) == []


@fetched
def test_every_expression_is_promql() -> None:
    given = [one.replace("$__rate_interval", "5m") for one in expressions()]
    assert judged("expressions", given) == []
    assert len(judged("expressions", ["sum by (x", "consilo_ready == "])) == 2, "what is none is found"


@promtool
def test_alerts_fire_when_they_should_and_only_then() -> None:
    run("promtool", "check", "rules", DEPLOY / "prometheus" / "alerts.yaml")
    run("promtool", "test", "rules", DEPLOY / "prometheus" / "alerts.test.yaml")
