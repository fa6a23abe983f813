"""The chart renders pods that the service starts in, and refuses values that would let in everybody."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

import authz
from authz.access.certificates import parse_callers
from authz.api.limits import parse_limits
from authz.runtime.authentication import require_authentication
from authz.runtime.settings import load_settings

CHART = Path(__file__).parents[2] / "deploy/helm/authz"
KUBERNETES = "--kube-version=1.31.0"
HELM = shutil.which("helm")

pytestmark = pytest.mark.skipif(HELM is None, reason="needs helm")


def helm(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run helm."""
    assert HELM is not None
    return subprocess.run([HELM, *arguments], capture_output=True, text=True, check=False)


def template(values: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """Render the chart with values."""
    given = (f"--set-json={name}={json.dumps(value)}" for name, value in values.items())
    return helm("template", "school", CHART, KUBERNETES, *given)


def rendered(values: dict[str, Any]) -> dict[str, Any]:
    """What the chart makes, by kind."""
    done = template(values)
    assert done.returncode == 0, done.stderr
    return {each["kind"]: each for each in yaml.safe_load_all(done.stdout) if each}


CALLERS = {"uri": {"spiffe://qalam/notebooks": "service:notebooks"}, "dns": {"roster.test": "service:roster"}}
GOOD: dict[str, dict[str, Any]] = {
    "tokens": {"accessTokens": True},
    "JWTs": {"jwt": {"issuer": "https://i.test", "audience": "authz", "jwksUrl": "https://i.test/jwks"}},
    "certificates": {"callers": CALLERS, "tls": {"secret": "tls", "clientCertificates": True}},
    "a mesh": {"allowUnauthenticated": True, "serviceMonitor": {"enabled": True}},
    "all at once": {
        "accessTokens": True,
        "database": {"url": "postgresql://authz@db/authz", "passwordSecret": "db"},
        "replica": {"sizeLimit": "1Gi", "medium": "Memory"},
        "settings": {"AUTHZ_MAX_STALENESS_S": 60},
        "limits": "[each.checks]\nper_second = 2000\n",
        "extraEnv": [{"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://collector:4318"}],
        "extraVolumes": [{"name": "ca", "secret": {"secretName": "ca"}}],
        "extraVolumeMounts": [{"name": "ca", "mountPath": "/secrets/ca"}],
    },
}


@pytest.mark.parametrize("values", GOOD.values(), ids=GOOD)
def test_a_pod_has_settings_that_a_server_starts_with_and_no_rights(
    values: dict[str, Any], tmp_path: Path
) -> None:
    made = rendered(values)
    pod = made["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    environ = {each["name"]: each["value"] for each in container["env"]}
    mounts = [each["mountPath"] for each in container["volumeMounts"]]
    for name, value in environ.items():
        if name.endswith("_FILE"):
            assert os.path.dirname(value) in mounts  # noqa: PTH120  a path in the container
            (tmp_path / name).touch()
            environ[name] = str(tmp_path / name)
    require_authentication(load_settings(environ=environ))
    assert {each["name"] for each in container["volumeMounts"]} == {each["name"] for each in pod["volumes"]}
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert pod["securityContext"]["runAsNonRoot"] and not pod["automountServiceAccountToken"]
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    selector = made["Service"]["spec"]["selector"]
    assert selector.items() <= made["Deployment"]["spec"]["template"]["metadata"]["labels"].items()


def test_pods_of_a_rollout_are_spread_over_nodes_and_replaced_once_clients_know_the_new_ones() -> None:
    spec = rendered({"accessTokens": True})["Deployment"]["spec"]
    (constraint,) = spec["template"]["spec"]["topologySpreadConstraints"]
    assert constraint == {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": spec["selector"],
        "matchLabelKeys": ["pod-template-hash"],
    }
    assert spec["minReadySeconds"] == 30
    assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}


def test_the_values_may_spread_pods_otherwise_or_not_at_all() -> None:
    by_zone: dict[str, Any] = {
        "maxSkew": 2,
        "topologyKey": "topology.kubernetes.io/zone",
        "whenUnsatisfiable": "DoNotSchedule",
    }
    selected = by_zone | {"labelSelector": {"matchLabels": {"tier": "authz"}}}
    values = {"accessTokens": True, "topologySpreadConstraints": [by_zone, selected], "minReadySeconds": 0}
    spec = rendered(values)["Deployment"]["spec"]
    ours, theirs = spec["template"]["spec"]["topologySpreadConstraints"]
    assert (ours["labelSelector"], theirs) == (spec["selector"], selected)
    assert spec["minReadySeconds"] == 0
    none = rendered({"accessTokens": True, "topologySpreadConstraints": []})["Deployment"]["spec"]
    assert "topologySpreadConstraints" not in none["template"]["spec"]


@pytest.mark.parametrize(("tag", "expected"), [(None, authz.__version__), ("2.0.0", "2.0.0")])
def test_the_image_is_that_of_the_release_unless_the_values_name_another(
    tag: str | None, expected: str
) -> None:
    values: dict[str, Any] = {"accessTokens": True} | ({} if tag is None else {"image": {"tag": tag}})
    (container,) = rendered(values)["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"authz:{expected}"


def test_the_callers_of_the_values_are_a_file_that_the_server_reads() -> None:
    text = rendered(GOOD["certificates"])["ConfigMap"]["data"]["callers.toml"]
    assert {name: str(each.caller) for (_, name), each in parse_callers(text.encode()).items()} == {
        "spiffe://qalam/notebooks": "service:notebooks",
        "roster.test": "service:roster",
    }


def test_the_limits_of_the_values_are_a_file_that_the_server_reads() -> None:
    text = rendered(GOOD["all at once"])["ConfigMap"]["data"]["limits.toml"]
    ((caller, kind),) = parse_limits(text.encode())
    assert (caller, str(kind)) == (None, "checks")


def test_a_setting_of_a_file_of_values_reaches_the_server_as_it_is_written(tmp_path: Path) -> None:
    settings = {"AUTHZ_REPLICA_MAX_BYTES": 8_589_934_592, "AUTHZ_MAX_STALENESS_S": 0.5, "AUTHZ_TRACES": True}
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump({"accessTokens": True, "settings": settings}))
    done = helm("template", "school", CHART, KUBERNETES, "--values", file)
    (pod,) = (each for each in yaml.safe_load_all(done.stdout) if each and each["kind"] == "Deployment")
    (container,) = pod["spec"]["template"]["spec"]["containers"]
    read = load_settings(environ={each["name"]: each["value"] for each in container["env"]})
    assert (read.replica_max_bytes, read.max_staleness_s, read.traces) == (8_589_934_592, 0.5, True)


def test_the_schema_of_the_values_knows_each_of_them() -> None:
    known = json.loads((CHART / "values.schema.json").read_text())["properties"]
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert known.keys() - {"global"} == values.keys()  # `global` is what a chart of charts may pass on
    for name, each in values.items():
        if not known[name].get("additionalProperties", True):
            assert known[name]["properties"].keys() >= each.keys(), name


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({}, "nothing proves who calls"),
        ({"callers": CALLERS}, "callers needs tls.secret"),
        ({"jwt": {"issuer": "https://i.test"}}, "jwt.audience"),
        ({"accessTokens": True, "tls": {"clientCertificates": True}}, "needs tls.secret"),
        ({"accessTokens": True, "tls": {"secert": "tls"}}, "secert.* not allowed"),
        ({"accessTokens": True, "accesTokens": True}, "accesTokens.* not allowed"),
        ({"accessTokens": True, "settings": {"max_checks": 3}}, "max_checks"),
        ({"accessTokens": True, "replicas": "two"}, "replicas.*integer"),
        ({"accessTokens": True, "database": {"url": "sqlite:///authz.db"}}, "all pods share one PostgreSQL"),
        ({"accessTokens": True, "database": {"url": "postgresql://a:b@db/a"}}, "set database.passwordSecret"),
        ({"accessTokens": True, "settings": {"AUTHZ_WORKERS": 3}}, "settings.AUTHZ_WORKERS"),
        ({"accessTokens": True, "extraEnv": [{"name": "AUTHZ_WORKERS", "value": "3"}]}, "under settings"),
        ({"accessTokens": True, "settings": {"AUTHZ_STOP_GRACE_S": 30}}, "terminationGracePeriodSeconds"),
        ({"accessTokens": True, "podDisruptionBudget": {"minAvailable": 1}}, "minAvailable"),
        ({"accessTokens": True, "minReadySeconds": -1}, "minReadySeconds"),
        ({"accessTokens": True, "topologySpreadConstraints": [{"maxSkew": 1}]}, "topologyKey"),
    ],
)
def test_values_that_would_not_do_are_refused(values: dict[str, Any], told: str) -> None:
    done = template(values)
    # The versions of Helm word what the schema refuses differently.
    assert done.returncode == 1 and re.search(told, done.stderr, re.IGNORECASE), done.stderr


def test_helm_finds_no_fault_in_the_chart() -> None:
    done = helm("lint", "--strict", CHART, KUBERNETES, "--set", "accessTokens=true")
    assert done.returncode == 0, done.stdout
