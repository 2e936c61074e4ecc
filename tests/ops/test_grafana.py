"""The dashboard of Grafana and what provisions it: valid, and everything that it asks for exists."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from operating import OPS, alerts, dashboard, expressions, load_yaml, metrics, metrics_in, panels, program, sections

GRAFANA = OPS / "grafana"
SOURCES = {"prometheus": "obs-prometheus", "loki": "obs-loki"}


def test_ids_are_unique_and_nothing_overlaps() -> None:
    ids = [panel["id"] for panel in panels()]
    assert len(ids) == len(set(ids))
    taken: dict[tuple[int, int], str] = {}
    for panel in panels():
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, f"{panel['title']} lies over {taken[x, y]}"
                taken[x, y] = panel["title"]


def test_every_panel_says_what_it_shows_and_asks_a_source_that_is_provisioned() -> None:
    provisioned = {one["uid"]: one["type"] for one in load_yaml(GRAFANA / "provisioning" / "datasources" / "obs.yml")["datasources"]}
    assert provisioned == {uid: kind for kind, uid in SOURCES.items()}
    for panel in panels():
        if panel["type"] == "row":
            continue
        assert panel["description"], panel["title"]
        for source in (panel["datasource"], *(target["datasource"] for target in panel["targets"])):
            assert SOURCES[source["type"]] == source["uid"], panel["title"]
        letters = [target["refId"] for target in panel["targets"]]
        assert len(letters) == len(set(letters)), panel["title"]


def test_the_provider_of_dashboards_names_the_folder_of_compose() -> None:
    (provider,) = load_yaml(GRAFANA / "provisioning" / "dashboards" / "obs.yml")["providers"]
    assert (provider["type"], provider["allowUiUpdates"]) == ("file", False)
    assert Path(provider["options"]["path"]).is_absolute()


def test_every_expression_parses(tmp_path: Path) -> None:
    """As rules of a file, which promtool reads; with an expression that does not parse it must fail."""
    asked = list(expressions())
    assert len(asked) > 50

    def checked(expressions: list[str]) -> subprocess.CompletedProcess[str]:
        file = tmp_path / "rules.yml"
        rules = "".join(f"      - record: one:number{number}\n        expr: {text!r}\n" for number, text in enumerate(expressions))
        file.write_text("groups:\n  - name: dashboard\n    rules:\n" + rules.replace("\\'", "''"))
        return subprocess.run([program("promtool"), "check", "rules", str(file)], capture_output=True, text=True, timeout=60, check=False)

    texts = [text for _, text in asked]
    assert not [text for text in texts if "$" in text], "a variable that is not filled in"
    done = checked(texts)
    assert done.returncode == 0, done.stdout + done.stderr
    assert checked([*texts, "sum(rate(obs_messages_total[1m])"]).returncode != 0


def test_every_metric_exists() -> None:
    asked = {metric: title for title, text in expressions() for metric in metrics_in(text)}
    assert len(asked) > 40
    assert not {metric: title for metric, title in asked.items() if metric not in metrics()}


def test_variables_ask_for_labels_that_exist() -> None:
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            (metric, label) = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["definition"]).groups()  # type: ignore[union-attr]
            assert metric in metrics()
            assert label in ("instance", "provider")


def test_what_a_panel_points_to_in_the_runbook_is_there() -> None:
    places = {head.lower().replace(" ", "-") for head in sections()}
    pointed = set(re.findall(r"RUNBOOK\.md#([\w-]+)", str(dashboard())))
    assert pointed
    assert pointed <= places


def test_every_metric_of_the_program_is_shown_or_watched() -> None:
    """What nobody looks at need not be computed each second; what is left out is left out on purpose."""
    seen = {metric for _, text in expressions() for metric in metrics_in(text)}
    seen |= {metric for rule in alerts().values() for metric in metrics_in(rule["expr"])}
    apart = {"obs_build_info", "obs_process_up", "obs_host_cores", "obs_gaps_total", "obs_mitigation_changes_total", "obs_symbols"}
    assert metrics() - seen == apart
