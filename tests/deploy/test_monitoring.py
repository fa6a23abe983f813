"""The dashboard and the alerts speak of metrics that exist, in expressions that Prometheus can read."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from authz.runtime.metrics import ReplicaCollector
from authz.runtime.server import Server
from authz.runtime.settings import load_settings
from authz.telemetry.metrics import REGISTRY

DEPLOY = Path(__file__).parents[2] / "deploy"
ALERTS = DEPLOY / "prometheus/alerts.yaml"
GUIDE = DEPLOY.parent / "docs/operate.md"
DASHBOARD = DEPLOY / "grafana/authz.json"
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="needs promtool, of Debian's package prometheus")


def promtool(*arguments: str | Path, given: str = "") -> None:
    """Run promtool, which finds no fault."""
    assert PROMTOOL is not None
    command = [PROMTOOL, *arguments]
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def check_alerts(folder: Path, case: Mapping[str, object]) -> None:
    """The alerts of a case are raised, and no others."""
    file = folder / "test.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [str(ALERTS)], "tests": [dict(case)]}))
    promtool("test", "rules", file)


def alert_expressions() -> list[str]:
    return [rule["expr"] for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def dashboard_expressions() -> list[str]:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


@pytest.fixture
async def exposition(sqlite_url: str) -> str:
    """All that a server exports."""
    settings = load_settings({"address": "127.0.0.1:0", "database_url": sqlite_url}, environ={})
    registry = CollectorRegistry()
    async with Server(settings) as server:
        collector = ReplicaCollector(
            server.view,
            server.decision_clock,
            workers=lambda: 1,
            restarts={("worker-0", "hung"): 0},
        )
        registry.register(collector)
        registry.register(REGISTRY)
        return generate_latest(registry).decode()


def names_in(exposition: str) -> set[str]:
    """The names of the series of every metric that is exported."""
    found: set[str] = set()
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", exposition, re.MULTILINE):
        parts = ("bucket", "count", "sum") if kind == "histogram" else ("",)
        found |= {f"{name}_{part}".rstrip("_") for part in parts}
    return found


async def test_every_metric_that_is_named_exists_and_every_metric_is_looked_at(exposition: str) -> None:
    known = names_in(exposition)
    named: set[str] = set()
    for expression in [*alert_expressions(), *dashboard_expressions()]:
        found = set(re.findall(r"\b(?:authz|rpc)_\w+(?=[{\[ )]|$)", re.sub(r"by \([^)]*\)", "", expression)))
        assert found and found <= known, expression
        named |= found
    histograms = {name.removesuffix("_bucket") for name in known if name.endswith("_bucket")}
    looked_at = {re.sub("_(bucket|count|sum)$", "", name) for name in named} | named
    others = {name for name in known if not name.startswith(tuple(histograms))}
    assert (others | histograms) - looked_at == {"authz_clock_behind_total"}


def test_the_guide_says_of_every_alert_what_to_do() -> None:
    alerts = [
        rule["alert"] for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]
    ]
    explained = re.findall(r"^\| `(Authz\w+)` \|", GUIDE.read_text(), re.MULTILINE)
    assert sorted(explained) == sorted(alerts)


@needs_promtool
def test_prometheus_accepts_the_alerts() -> None:
    promtool("check", "rules", ALERTS)


@needs_promtool
def test_the_first_internal_error_raises_an_alert_and_an_old_one_none(tmp_path: Path) -> None:
    labels = {"instance": "a", "rpc_method": "m", "rpc_response_status_code": "INTERNAL"}
    shown = ",".join(f'{name}="{value}"' for name, value in labels.items())
    alert = {
        "exp_labels": labels | {"severity": "ticket"},
        "exp_annotations": {
            "summary": "m fails with INTERNAL at a",
            "description": "The line `call failed` in the log has the stack.",
        },
    }
    expected = {"15m": [], "25m": [alert], "40m": [], "55m": [alert]}
    case = {
        "interval": "1m",
        "input_series": [
            # The series begins with the first error, 20 minutes after the start; the second is at 50 minutes.
            {"series": f"rpc_server_call_duration_seconds_count{{{shown}}}", "values": "_x20 1x30 2x30"}
        ],
        "alert_rule_test": [
            {"eval_time": time, "alertname": "AuthzInternalErrors", "exp_alerts": alerts}
            for time, alerts in expected.items()
        ],
    }
    check_alerts(tmp_path, case)


@needs_promtool
def test_writes_that_hang_until_their_callers_give_up_raise_an_alert(tmp_path: Path) -> None:
    method = 'rpc_method="/authz.v1.DirectoryService/Write"'
    series = {
        f'{{instance="{instance}",{method},rpc_response_status_code="{code}"}}': values
        for instance, code, values in (
            # They hang from the tenth minute on, and one in twenty of another server always fails.
            ("a", "OK", "0+60x10 600x20"),
            ("a", "CANCELLED", "0x10 0+10x20"),
            ("b", "OK", "0+95x30"),
            ("b", "ABORTED", "0+5x30"),
        )
    }
    alert = {
        "exp_labels": {"instance": "a", "severity": "page"},
        "exp_annotations": {
            "summary": "More than 10 % of the writes of a fail",
            "description": "Nobody's access can be taken away there. `authz doctor` says whether the database"
            " is the cause.",
        },
    }
    case = {
        "interval": "1m",
        "input_series": [
            {"series": f"rpc_server_call_duration_seconds_count{labels}", "values": values}
            for labels, values in series.items()
        ],
        "alert_rule_test": [
            {"eval_time": time, "alertname": "AuthzWritesFail", "exp_alerts": alerts}
            for time, alerts in {"9m": [], "25m": [alert]}.items()
        ],
    }
    check_alerts(tmp_path, case)


@needs_promtool
def test_checks_that_become_slow_raise_an_alert_and_fast_ones_none(tmp_path: Path) -> None:
    def bucket(instance: str, least_s: str, values: str) -> dict[str, str]:
        labels = f'instance="{instance}",rpc_method="/authz.v1.AuthorizationService/Check",le="{least_s}"'
        return {"series": f"rpc_server_call_duration_seconds_bucket{{{labels}}}", "values": values}

    slow = {
        "exp_labels": {"instance": "slow", "severity": "ticket"},
        "exp_annotations": {
            "summary": "One check in a hundred takes 90ms or more at slow",
            "description": "The processors are busy, or a caller floods the server. See docs/scale.md.",
        },
    }
    case = {
        "interval": "1m",
        "input_series": [
            # From the tenth minute on, one of twenty takes 50 to 100 ms; elsewhere one of a thousand.
            bucket("slow", "0.05", "0+60x10 657+57x30"),
            bucket("slow", "0.1", "0+60x40"),
            bucket("slow", "+Inf", "0+60x40"),
            bucket("fast", "0.05", "0+999x40"),
            bucket("fast", "0.1", "0+1000x40"),
            bucket("fast", "+Inf", "0+1000x40"),
            {"series": "authz_workers", "values": "1x40"},
        ],
        "alert_rule_test": [
            {"eval_time": "9m", "alertname": "AuthzChecksSlow", "exp_alerts": []},
            {"eval_time": "39m", "alertname": "AuthzChecksSlow", "exp_alerts": [slow]},
            {"eval_time": "39m", "alertname": "AuthzAbsent", "exp_alerts": []},
        ],
    }
    check_alerts(tmp_path, case)


@needs_promtool
def test_servers_that_are_all_gone_raise_an_alert(tmp_path: Path) -> None:
    absent = {
        "exp_labels": {"severity": "page"},
        "exp_annotations": {
            "summary": "No server of the authorization service is there to be scraped",
            "description": "Either none runs, or Prometheus does not reach AUTHZ_METRICS_ADDRESS.",
        },
    }
    case = {
        "interval": "1m",
        "input_series": [{"series": 'authz_workers{instance="a"}', "values": "1x10 _x20"}],
        "alert_rule_test": [
            {"eval_time": time, "alertname": "AuthzAbsent", "exp_alerts": alerts}
            for time, alerts in {"9m": [], "25m": [absent]}.items()
        ],
    }
    check_alerts(tmp_path, case)


@needs_promtool
def test_prometheus_reads_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    variables = {"$__rate_interval": "1m", "$__range": "1h", "$instance": ".*"}
    rules = []
    for number, expression in enumerate(dashboard_expressions()):
        for name, value in variables.items():
            expression = expression.replace(name, value)  # noqa: PLW2901  one after the other
        rules.append({"record": f"panel:{number}", "expr": expression})
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", file)


@needs_promtool
async def test_the_names_are_as_prometheus_advises(exposition: str) -> None:
    promtool("check", "metrics", given=exposition)
