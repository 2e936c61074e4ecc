"""What lies in ops/ for those who watch, read as data; and the names that the program knows, to hold the two together."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from documents import anchor

from obs.config.options import SupervisorOptions
from obs.lifecycle.days import REASONS as DAY_REASONS
from obs.monitor.health import REASONS, judge
from obs.monitor.host import HostFigures
from obs.monitor.metrics import render
from obs.monitor.tallies import Tallies
from obs.monitor.view import HostView
from obs.record.events import GAP_REASONS

ROOT = Path(__file__).resolve().parents[2]
OPS = ROOT / "ops"
RUNBOOK = OPS / "RUNBOOK.md"
DASHBOARD = OPS / "grafana" / "dashboards" / "obs.json"
SUFFIXES = ("_total", "_created")
__all__ = ["DAY_REASONS", "GAP_REASONS", "REASONS", "anchor"]


def program(name: str) -> str:
    """Return where a program is; skips where it is not."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"needs {name} (ops/test-deps installs it)")
    return found


def load_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


@cache
def alerts() -> dict[str, dict[str, Any]]:
    """The alert rules by name."""
    rules = [rule for group in load_yaml(OPS / "prometheus" / "alerts.yml")["groups"] for rule in group["rules"]]
    found = {rule["alert"]: rule for rule in rules}
    assert len(found) == len(rules), "two alerts bear one name"
    return found


@cache
def metrics() -> set[str]:
    """The names under which Prometheus knows what /metrics shows: families, with _total where they count."""
    view = HostView(0, [], {}, {}, HostFigures())
    text = render(view, judge(view, SupervisorOptions()), Tallies(Path("/nowhere")))[0].decode()
    return families(text)


def families(text: str) -> set[str]:
    """The families of a text of metrics. A TYPE line of a counter bears the name without _total."""
    found = re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M)
    return {name if kind != "counter" or name.endswith("_total") else f"{name}_total" for name, kind in found}


def metrics_in(text: str) -> set[str]:
    """What looks like a metric of ours in an expression or a text."""
    return set(re.findall(r"\bobs_[a-z0-9_]*[a-z0-9](?=\b|\{)", text))


@cache
def dashboard() -> dict[str, Any]:
    value: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return value


def panels() -> list[dict[str, Any]]:
    """All panels, those of collapsed rows too."""
    return [one for panel in dashboard()["panels"] for one in (panel, *panel.get("panels", ()))]


def expressions() -> Iterator[tuple[str, str]]:
    """Title and expression of everything that the dashboard asks Prometheus, its variables filled in as for one host."""
    for panel in panels():
        for target in panel.get("targets", ()):
            if target["datasource"]["type"] == "prometheus":
                yield panel["title"], filled(target["expr"])
    for annotation in dashboard()["annotations"]["list"]:
        yield f"annotation {annotation['name']}", filled(annotation["expr"])


def filled(expression: str) -> str:
    """Put values in place of Grafana's variables."""
    one = expression.replace("$__rate_interval", "40s").replace("$instance", ".*")
    return one.replace('provider="$provider"', 'provider=~".+"').replace("$provider", ".*")


@cache
def sections() -> dict[str, str]:
    """The second-level headings of the runbook, and the first-level ones, each with its text."""
    parts = re.split(r"^(#{1,2} .+)$", RUNBOOK.read_text(), flags=re.M)
    heads = [head.lstrip("#").strip() for head in parts[1::2]]
    assert len(set(map(anchor, heads))) == len(heads), "two headings have one anchor"
    return dict(zip(heads, parts[2::2], strict=True))
