"""The examples in deploy/: they can be read, and start commands, ask for paths and show metrics that there are."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
import yaml  # type: ignore[import-untyped]

from aggregator.outcomes import Outcome, Status
from aggregator.serve import DRAIN_S
from crypto.errors import CertificateError
from federation.operations.cluster import ensure_token, nodes_environment
from federation.operations.monitoring import AggregatorCounts, SiloCounts
from policies.units import UNDECLARED_S
from silo_node.serve import drain_seconds
from tests.deploy.reading import CHART, DEPLOY, ROOT, expressions, pods, read, rules

TEMPLATES = {path.name: path.read_text() for path in sorted((CHART / "templates").glob("*.yaml"))}
VALUES = re.compile(r"\.Values\.([A-Za-z.]+)")
# Labels whose every value the code lists; a rule may ask for no other.
LISTED = {
    ("consilo_requests_total", "outcome"): set(get_args(Outcome)),
    ("consilo_silo_outcomes_total", "status"): set(get_args(Status)),
    ("consilo_streams", "role"): {"silo", "analyst"},
    ("up", "job"): {"consilo.*"},
}


def commands() -> Iterator[list[str]]:
    for service in read("compose.yaml")["services"].values():
        yield service["command"]
    for found in re.findall(r"^ +command: (\[\"consilo.*\])$", TEMPLATES["statefulset.yaml"], re.MULTILINE):
        yield json.loads(found)
    (silo,) = (one for one in pods()["head"]["containers"] if one["name"] == "silo")
    yield shlex.split(silo["args"][0])[1:]


@pytest.mark.process
def test_the_examples_start_commands_that_exist() -> None:
    assert len(list(commands())) == 4 + 2 + 1
    for program, *words in {tuple(one) for one in commands()}:
        names = [word for word in words if re.fullmatch("aggregator|serve", word)]
        shown = subprocess.run(
            [Path(sys.executable).parent / program, *names, "--help"],
            text=True,
            capture_output=True,
            timeout=60,
            check=True,
        ).stdout
        for option in (word for word in words if word.startswith("--")):
            assert option in shown, (program, option)


def test_a_stop_is_given_longer_than_rounds_may_take_to_end() -> None:
    draining = {"silo": drain_seconds(UNDECLARED_S), "aggregator": DRAIN_S}
    for name, service in read("compose.yaml")["services"].items():
        role = "aggregator" if name == "hub" else "silo"
        seconds = int(re.sub(r"^\$\{CONSILO_STOP:-(.*)\}$", r"\1", service["stop_grace_period"]).removesuffix("s"))
        assert seconds >= draining[role] + 10, name
    (found,) = re.findall(
        r"terminationGracePeriodSeconds: {{ .Values.stopSeconds \| default \(ternary (\d+) (\d+) \$isSilo\) }}",
        TEMPLATES["statefulset.yaml"],
    )
    assert int(found[0]) >= draining["silo"] + 10
    assert int(found[1]) >= draining["aggregator"] + 10
    assert pods()["head"]["terminationGracePeriodSeconds"] >= draining["silo"] + 10


def test_every_container_is_confined_and_runs_as_the_image_s_user() -> None:
    text = (DEPLOY / "Containerfile").read_text()
    assert "\nUSER 10001:10001\n" in text
    for service in read("compose.yaml")["services"].values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["user"] == "10001:10001"
        assert "/health" in service["healthcheck"]["test"][-1]
    (whole,) = re.findall(r"\n      securityContext:\n((?: {8}.*\n)+)", TEMPLATES["statefulset.yaml"])
    chart = {
        "securityContext": yaml.safe_load(whole),
        "containers": [
            {
                "securityContext": yaml.safe_load(
                    re.findall(r"\n {10}securityContext:\n((?: {12}.*\n)+)", TEMPLATES["statefulset.yaml"])[0]
                )
            }
        ],
    }
    for name, pod in {"chart": chart, **pods()}.items():
        user = pod["securityContext"]
        assert (user["runAsUser"], user["runAsNonRoot"]) == (10001, True), name
        assert user["fsGroupChangePolicy"] == "OnRootMismatch", "else keys open to the group at every start"
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            confined = container["securityContext"]
            assert confined["readOnlyRootFilesystem"], name
            assert not confined["allowPrivilegeEscalation"], name
            assert confined["capabilities"] == {"drop": ["ALL"]}, name


def test_a_silo_publishes_no_port_and_shares_a_network_with_the_aggregator_alone() -> None:
    compose = read("compose.yaml")
    silos = {name: service for name, service in compose["services"].items() if name != "hub"}
    assert len(silos) == 3
    for name, service in silos.items():
        assert "ports" not in service
        assert service["networks"] == [name]
        assert compose["networks"][name] == {"internal": True}
        assert set(compose["services"]["hub"]["networks"][name]) == {"aliases"}


def test_the_chart_has_every_value_that_its_templates_name() -> None:
    values = read("helm", "consilo", "values.yaml")
    named = {path for text in TEMPLATES.values() for path in VALUES.findall(text)}
    for path in named:
        found = values
        for part in path.split("."):
            assert part in found, path
            found = found[part]
    assert {path.split(".")[0] for path in named} == set(values)
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert set(schema["properties"]) == {*values, "global"}
    for text in TEMPLATES.values():
        opened = len(re.findall(r"\{\{-? (?:if|range|with|define) ", text))
        assert opened == len(re.findall(r"\{\{-? end ", text)), "every block ends"


def test_versions_are_those_of_the_software() -> None:
    ray = re.search(r"^ray==(\S+)$", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert ray is not None
    cluster = (DEPLOY / "kuberay" / "silo-cluster.yaml").read_text()
    assert f'rayVersion: "{ray[1]}"' in cluster
    version = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    assert read("helm", "consilo", "Chart.yaml")["appVersion"] == version[1]
    images = {f"consilo:{version[1]}"}
    assert set(re.findall(r"image: (\S+)", cluster)) == images
    assert read("helm", "consilo", "values.yaml")["image"] in images
    assert set(re.findall(r"CONSILO_IMAGE:-(\S+)}", (DEPLOY / "compose.yaml").read_text())) == images


def counted() -> dict[str, set[str]]:
    """Return every metric of both ends with the labels that Prometheus has of it."""
    aggregator, silo = AggregatorCounts(), SiloCounts()
    aggregator.refused("frame")
    aggregator.ended("answered", 1.0, {"aspen": "answered"}, ("CLOCK",))
    aggregator.moved("silo", 1, 1)
    silo.ended("opened", 1.0, ("CLOCK",))
    silo.dialled("ended")
    silo.answered("propose")
    silo.moved(1, 1)
    found: dict[str, set[str]] = {}
    for counts in (aggregator, silo):
        for sample in (one for metric in counts.registry.collect() for one in metric.samples):
            found.setdefault(sample.name, {"instance", "job"}).update(sample.labels)
    return found


def test_alerts_and_dashboard_are_about_metrics_that_there_are() -> None:
    labels = counted() | {"up": {"instance", "job"}}
    known = {name for name in labels if not name.endswith(("_sum", "_count"))}
    assert len(expressions()) > 25
    shown = set()
    for expression in expressions():
        names = set(re.findall(r"\b(?:consilo_[a-z_]+|up\b)", expression))
        assert names, expression
        assert names <= known, expression
        shown |= names
        for group in re.findall(r"\b(?:by|on) \(([a-z, ]+)\)", expression):
            grouped = set(group.split(", "))
            assert all(grouped <= labels[name] for name in names), expression
        for name, matchers in re.findall(r"([a-z_]+)\{([^}]*)\}", expression):
            for label, value in re.findall(r'(\w+)=~?"([^"]*)"', matchers):
                options = {value} if name == "up" else set(value.split("|"))
                assert options <= LISTED[name, label], expression
    assert shown == known, "every metric is shown, or gives an alarm"


def test_an_alert_says_what_happened_and_what_to_do() -> None:
    for rule in rules():
        assert set(rule["annotations"]) == {"summary", "action"}
        assert rule["labels"]["severity"] in {"page", "ticket"}
    tested = {
        one["alertname"]
        for case in read("prometheus", "alerts.test.yaml")["tests"]
        for one in case["alert_rule_test"]
        if "exp_alerts" in one
    }
    assert tested == {rule["alert"] for rule in rules()}


def test_no_example_names_where_packages_come_from() -> None:
    for path in (one for one in DEPLOY.rglob("*") if one.is_file()):
        assert not re.search(r"pypi|pythonhosted|index-url|docker\.io|deb\.debian", path.read_text()), path


@pytest.mark.process
def test_a_node_of_the_ray_cluster_makes_a_certificate_that_the_silo_accepts(tmp_path: Path) -> None:
    """With the authority that docs/deploy.md makes, and the pod's own script."""
    authority, tls = tmp_path / "authority", tmp_path / "tls"
    for one in (authority, tls):
        one.mkdir()
    (made,) = re.findall(r"^\$ (openssl req .*)$", (ROOT / "docs" / "deploy.md").read_text(), re.MULTILINE)
    subprocess.run(shlex.split(made), cwd=authority, check=True, capture_output=True, timeout=60)
    (script,) = pods()["worker"]["initContainers"][0]["args"]
    address = {"ADDRESS": "10.1.2.3", "NAMESPACE": "north", "PATH": os.environ["PATH"]}
    placed = script.replace("/tls/", f"{tls}/").replace("/authority/", f"{authority}/")
    subprocess.run(["sh", "-euc", placed], env=address, check=True, capture_output=True, timeout=60)
    ensure_token(tmp_path / "ray.token")
    settings = nodes_environment(tmp_path / "ray.token", tls, "10.1.2.3")
    asked = {one["name"]: one["value"] for one in pods()["worker"]["containers"][0]["env"]}
    for name in ("RAY_USE_TLS", "RAY_AUTH_MODE", "RAY_USAGE_STATS_ENABLED"):
        assert settings[name] == asked[name]
    for name in ("RAY_TLS_SERVER_CERT", "RAY_TLS_SERVER_KEY", "RAY_TLS_CA_CERT"):
        assert settings[name] == str(tmp_path) + asked[name]
    with pytest.raises(CertificateError):
        nodes_environment(tmp_path / "ray.token", tls, "10.1.2.4")
