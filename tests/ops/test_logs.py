"""The pipeline of logs: no Alloy and no Loki run here, so what can be held against the program and against itself is."""

from __future__ import annotations

import re

import orjson
from operating import OPS, dashboard, load_yaml, panels

ALLOY = OPS / "alloy" / "config.alloy"
BLOCK = re.compile(r'^([a-z_.]+) "(\w+)" \{$', re.M)


def text() -> str:
    """The configuration without comments and without what stands in strings."""
    return "\n".join(re.sub(r'"(?:[^"\\]|\\.)*"', '""', line).split("//")[0] for line in ALLOY.read_text().splitlines())


def test_blocks_are_closed_and_references_lead_to_components() -> None:
    bare = text()
    for opened, closed in ("{}", "[]", "()"):
        assert bare.count(opened) == bare.count(closed) > 0 or opened == "("
    components = {f"{kind}.{label}" for kind, label in BLOCK.findall(ALLOY.read_text())}
    named = set(re.findall(r"\b((?:loki|local)\.\w+(?:\.\w+)?\.\w+)\.(?:receiver|rules|targets)\b", bare))
    assert named == {component for component in components if not component.startswith("loki.source")}, "each is used, and each exists"
    assert sorted(label for kind, label in BLOCK.findall(ALLOY.read_text()) if kind == "loki.source.file") == ["containers", "obs"]


def test_only_our_containers_pass() -> None:
    """The selector against lines as Docker's json-file driver writes them, with the tag that compose gives."""
    services = load_yaml(OPS / "compose.yaml")["services"]
    tag = services["obs"]["logging"]["options"]["tag"]
    found = re.search(r'selector = "\{filename=~\\"\.\+\\"\} != `(.+)`"', ALLOY.read_text())
    assert found is not None
    needle = found[1].replace('\\"', '"')

    def wrapped(line: bytes, tag: str | None) -> str:
        attrs = {} if tag is None else {"attrs": {"tag": tag}}
        return orjson.dumps({"log": line.decode(), "stream": "stderr", **attrs, "time": "2026-01-22T00:31:05.5Z"}).decode()

    ours = orjson.dumps({"ts": "2026-01-22T00:31:05.500Z", "level": "info", "role": "feed", "provider": "kis", "event": "ready"})
    assert needle in wrapped(ours, tag)
    assert needle not in wrapped(ours, None)
    assert needle not in wrapped(ours, "postgres")
    assert needle not in wrapped(b'"attrs":{"tag":"obs"}', None), "what another writes is no tag"
    mounts = [volume for volume in services["alloy"]["volumes"] if isinstance(volume, str)]
    folder = next(volume.split(":")[1] for volume in mounts if volume.startswith("/var/lib/docker/containers:"))
    assert f'"{folder}/*/*-json.log"' in ALLOY.read_text()


def test_the_units_of_systemd_are_kept() -> None:
    found = re.search(r'regex\s+= "(.+)"', ALLOY.read_text())
    assert found is not None
    shape = found[1].replace("\\\\", "\\")
    units = [path.name.replace("@.", "@kis.") for path in (OPS / "systemd").glob("*.service")]
    assert len(units) == 2
    assert all(re.fullmatch(shape, unit) for unit in units)
    assert not re.fullmatch(shape, "observer.service")


def test_loki_listens_where_the_others_look_and_keeps_no_more_labels() -> None:
    loki = load_yaml(OPS / "loki" / "loki.yml")
    port = loki["server"]["http_listen_port"]
    assert f"http://loki:{port}/loki/api/v1/push" in ALLOY.read_text()
    (source,) = [one for one in load_yaml(OPS / "grafana/provisioning/datasources/obs.yml")["datasources"] if one["type"] == "loki"]
    assert source["url"] == f"http://loki:{port}"
    assert loki["limits_config"]["max_label_names_per_series"] <= 5
    assert loki["schema_config"]["configs"][0]["store"] == "tsdb"
    assert loki["compactor"]["retention_enabled"]
    assert loki["compactor"]["delete_request_store"] == loki["schema_config"]["configs"][0]["object_store"]


def test_the_panel_of_logs_asks_for_labels_that_are_there() -> None:
    kept = re.search(r"stage\.label_keep \{\s+values = \[([^\]]*)\]", ALLOY.read_text())
    assert kept is not None
    labels = set(re.findall(r"\w+", kept[1]))
    asked = [target["expr"] for panel in panels() if panel["type"] == "logs" for target in panel["targets"]]
    assert len(asked) == 1
    assert set(re.findall(r"(\w+)=~", asked[0])) == labels == {"level", "role", "provider"}
    (variable,) = [one for one in dashboard()["templating"]["list"] if one["name"] == "level"]
    assert {option["value"] for option in variable["options"]} == {"debug", "info", "warning", "error"}
