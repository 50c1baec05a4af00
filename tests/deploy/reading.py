"""The files of deploy/, read."""

import json
import os
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "consilo"
# What `make deploy-check` fetches.
TOOLS = Path(os.environ.get("CONSILO_DEPLOY_TOOLS", ROOT / ".deploy-tools"))


def read(*parts: str) -> Any:
    return yaml.safe_load(DEPLOY.joinpath(*parts).read_text())


def read_all(*parts: str) -> list[Any]:
    return list(yaml.safe_load_all(DEPLOY.joinpath(*parts).read_text()))


def rules() -> list[Any]:
    return [rule for group in read("prometheus", "alerts.yaml")["groups"] for rule in group["rules"]]


def expressions() -> list[str]:
    """Return every question to Prometheus, of the alerts and of the dashboard."""
    board = json.loads((DEPLOY / "grafana" / "consilo.json").read_text())
    return [rule["expr"] for rule in rules()] + [
        target["expr"] for panel in board["panels"] for target in panel["targets"]
    ]


def pods() -> dict[str, Any]:
    """Return the specs of the pods of the KubeRay example, by node."""
    spec = read_all("kuberay", "silo-cluster.yaml")[0]["spec"]
    return {
        "head": spec["headGroupSpec"]["template"]["spec"],
        "worker": spec["workerGroupSpecs"][0]["template"]["spec"],
    }
