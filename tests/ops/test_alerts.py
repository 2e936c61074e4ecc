"""The rules of Prometheus and Alertmanager: they load, each fires where it must and only there, each leads to its entry."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from operating import OPS, REASONS, alerts, anchor, load_yaml, metrics, metrics_in, program, sections

PROMETHEUS = OPS / "prometheus"
RULES, TESTS = PROMETHEUS / "alerts.yml", PROMETHEUS / "alerts_test.yml"
ALERTMANAGER = OPS / "alertmanager" / "alertmanager.yml"


def run(*command: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=cwd, check=False)


def test_rules_load() -> None:
    done = run(program("promtool"), "check", "rules", str(RULES))
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_fires_where_it_must_and_only_there() -> None:
    done = run(program("promtool"), "test", "rules", TESTS.name, cwd=PROMETHEUS)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_rule_that_is_wrong_is_noticed(tmp_path: Path) -> None:
    """The unit tests of the rules are no decoration: each of these changes makes them fail."""
    promtool, text = program("promtool"), RULES.read_text()
    for old, new in (("> 0.5\n", "> 0.6\n"), ("for: 30s", "for: 3s"), ("obs_health_alarm{", "obs_health_reason{")):
        assert old in text
        (tmp_path / "alerts.yml").write_text(text.replace(old, new))
        (tmp_path / "alerts_test.yml").write_text("\n".join(_groups("ObsRingHalfUsed", "ObsMute", "ObsDisk")))
        assert run(promtool, "test", "rules", "alerts_test.yml", cwd=tmp_path).returncode != 0, (old, new)


def _groups(*names: str) -> list[str]:
    """The head of the file of tests and the groups of these alerts."""
    head, *groups = re.split(r"^(?=  - name: )", TESTS.read_text(), flags=re.M)
    return [head, *(group for group in groups if group.split("\n", 1)[0].removeprefix("  - name: ") in names)]


def test_every_alert_has_a_test_that_fires_and_one_that_does_not() -> None:
    fires: set[str] = set()
    quiet: set[str] = set()
    for group in load_yaml(TESTS)["tests"]:
        for one in group["promql_expr_test"]:
            assert f'alertname="{group["name"]}"' in one["expr"]
            (fires if one["exp_samples"] else quiet).add(group["name"])
    assert fires == quiet == set(alerts())


def test_every_health_reason_has_one_alert() -> None:
    asked = [reason for rule in alerts().values() for reason in re.findall(r'obs_health_alarm\{reason="(\w+)"\}', rule["expr"])]
    assert sorted(asked) == sorted(REASONS)


def test_no_alert_asks_for_what_an_ordered_stop_explains() -> None:
    assert not any("obs_health_reason" in rule["expr"] or "obs_healthy" in rule["expr"] for rule in alerts().values())


@pytest.mark.parametrize("name", alerts())
def test_an_alert_says_what_and_leads_to_its_entry(name: str) -> None:
    rule = alerts()[name]
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    file, _, place = rule["annotations"]["runbook_url"].partition("#")
    assert file == "ops/RUNBOOK.md"
    texts = {anchor(head): text for head, text in sections().items()}
    assert place in texts, f"{name}: no heading for #{place}"
    assert place == name.lower() or re.search(rf"\b{name}\b", texts[place] + texts["alerts"]), f"{name} is not named in #{place}"


def test_every_metric_of_an_alert_exists() -> None:
    asked = {metric: name for name, rule in alerts().items() for metric in metrics_in(rule["expr"])}
    assert not {metric: name for metric, name in asked.items() if metric not in metrics()}


def test_alertmanager_loads_and_its_rules_name_alerts() -> None:
    done = run(program("amtool"), "check-config", str(ALERTMANAGER))
    assert done.returncode == 0, done.stdout + done.stderr
    named = set(re.findall(r"\bObs\w+", ALERTMANAGER.read_text()))
    assert len(named) > 10
    assert named <= set(alerts())


@pytest.mark.parametrize(
    ("labels", "receiver"),
    [("severity=critical provider=kis", "operator"), ("severity=warning provider=kis", "operator"), ("severity=info", "operator")],
)
def test_every_severity_reaches_somebody(labels: str, receiver: str) -> None:
    done = run(program("amtool"), "config", "routes", "test", f"--config.file={ALERTMANAGER}", *labels.split())
    assert (done.returncode, done.stdout.strip()) == (0, receiver), done.stderr


def test_the_configuration_of_prometheus_loads(tmp_path: Path) -> None:
    """As it is shipped, its absolute paths moved to where the files are here."""
    (tmp_path / "token").write_text("not-the-token\n")
    text = (PROMETHEUS / "prometheus.yml").read_text()
    for old, new in (("/etc/prometheus/alerts.yml", RULES), ("/run/secrets/obs_token", tmp_path / "token")):
        assert old in text
        text = text.replace(old, str(new))
    (tmp_path / "prometheus.yml").write_text(text)
    done = run(program("promtool"), "check", "config", str(tmp_path / "prometheus.yml"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(alerts())} rules found" in done.stdout


def test_what_the_configuration_reads_is_where_compose_puts_it() -> None:
    """Names of services, secrets and mounts of the shipped files are those of ops/compose.yaml."""
    services = load_yaml(OPS / "compose.yaml")["services"]

    def given(service: str) -> set[str]:
        secrets = [one if isinstance(one, str) else one["target"] for one in services[service].get("secrets", ())]
        return {f"/run/secrets/{name}" for name in secrets} | {volume.split(":")[1] for volume in services[service]["volumes"]}

    prometheus = load_yaml(PROMETHEUS / "prometheus.yml")
    jobs = {job["job_name"]: job for job in prometheus["scrape_configs"]}
    assert jobs["obs"]["authorization"]["credentials_file"] in given("prometheus")
    assert set(prometheus["rule_files"]) <= given("prometheus")
    targets = [*jobs["obs"]["static_configs"], *prometheus["alerting"]["alertmanagers"][0]["static_configs"]]
    assert {target.split(":")[0] for one in targets for target in one["targets"]} == {"obs", "alertmanager"} <= set(services)
    (webhook,) = load_yaml(ALERTMANAGER)["receivers"][0]["webhook_configs"]
    assert webhook["http_config"]["authorization"]["credentials_file"] in given("alertmanager")
    dashboards = load_yaml(OPS / "grafana" / "provisioning" / "dashboards" / "obs.yml")["providers"][0]["options"]["path"]
    assert dashboards in given("grafana")
