"""The image and the compose file: linted, held against each other and against the program. Building and running it: image.py."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from obs.config import load
from obs.record.schema import DTYPES
from obs.ring.layout import ring_bytes
from obs.supervisor import tree

ROOT = Path(__file__).resolve().parents[2]
OPS = ROOT / "ops"
COMPOSE = OPS / "compose.yaml"
DOCKERFILE = OPS / "Dockerfile"
SERVICES = {"obs", "postgres", "prometheus", "alertmanager", "grafana", "loki", "alloy"}
USERS = {
    "obs_token": 10001, "obs_pgpass": 10001, "kis.env": 10001, "prometheus_token": 65534, "obs_alert_token": 65534,
    "grafana_password": 472, "postgres_password": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def compose() -> Any:
    return yaml.safe_load(COMPOSE.read_text())


def seconds(text: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(s|m)", text).groups()  # type: ignore[union-attr]
    return int(number) * {"s": 1, "m": 60}[unit]


def test_hadolint_finds_nothing(tmp_path: Path) -> None:
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if hadolint is None:
        pytest.skip("no hadolint: it has no wheel for this machine")

    def lint(path: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run([hadolint, "--no-color", path], capture_output=True, text=True, timeout=60, check=False)

    done = lint(DOCKERFILE)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr
    bad = tmp_path / "Dockerfile"
    bad.write_text("FROM python\nRUN apt-get install x\n")
    assert lint(bad).returncode == 1


def test_compose_is_read_by_compose(tmp_path: Path) -> None:
    if shutil.which("docker-compose") is None:
        pytest.skip("no docker-compose: run ops/test-deps as root")

    def config(text: str) -> subprocess.CompletedProcess[str]:
        path = tmp_path / "compose.yaml"
        path.write_text(text)
        words = ["docker-compose", "--project-directory", str(OPS), "--file", str(path), "config"]
        return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)

    # The one key that Debian's version is too old for.
    text = COMPOSE.read_text().replace("\nname: obs\n", "\n", 1)
    done = config(text)
    assert done.returncode == 0, done.stderr
    assert set(yaml.safe_load(done.stdout)["services"]) == SERVICES
    assert config(text.replace("shm_size: 1gb", "shm: 1gb")).returncode != 0
    assert config(text.replace("file: ./secrets/obs_token", "path: ./secrets/obs_token")).returncode != 0


def test_every_service_is_pinned_private_restarted_and_judged(compose: Any) -> None:
    assert set(compose["services"]) == SERVICES
    for name, service in compose["services"].items():
        if "build" not in service:
            assert re.fullmatch(r"[a-z/]+:v?\d+\.\d+[-.a-z0-9]*", service["image"]), f"{name}: a version, not whatever is newest"
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name}: {port} would be open to the network"
        assert service["restart"] == "unless-stopped"
        assert "healthcheck" in service or name == "obs", "obs has that of its image"
        for needed, how in service.get("depends_on", {}).items():
            assert needed in SERVICES
            assert how == {"condition": "service_healthy"}
        assert "max-size" in service["logging"]["options"], f"{name}: logs without a bound"
        for key, value in service.get("environment", {}).items():
            secret = re.search("PASSWORD|TOKEN|SECRET", key)
            assert not secret or str(value).startswith("/run/secrets/"), f"{name}: {key} would show in docker inspect"


def test_what_is_mounted_is_there(compose: Any) -> None:
    for name, service in compose["services"].items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("./"):
                assert (OPS / source).exists(), f"{name}: Docker would make an empty folder of {source}"
                assert volume.endswith(":ro")
            elif not source.startswith("/"):
                assert source in compose["volumes"]


def test_the_collector_has_what_it_needs(compose: Any) -> None:
    service = compose["services"]["obs"]
    config = load(OPS / "compose.toml", environ={})
    assert str(config.data_dir) == "/var/lib/obs"
    assert f"obs-data:{config.data_dir}" in service["volumes"]
    assert "./compose.toml:/etc/obs/obs.toml:ro" in service["volumes"]
    assert (config.http.host, config.http.port) == ("0.0.0.0", 8000)
    mounted = {f"/run/secrets/{name}" for name in service["secrets"]}
    kis = tomllib.loads((OPS / "compose.toml").read_text())["providers"]["kis"]
    passfile = (config.database.dsn or "").partition("passfile=")[2]
    assert {str(config.http.token_file), passfile, kis["secrets_file"]} == mounted
    assert service["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    each = sum(ring_bytes(DTYPES[name], capacity) for name, capacity in config.ring.capacities().items())
    assert f"{round(each / 2**20)} MiB per provider and session" in COMPOSE.read_text()
    assert f"{round(each / 2**20)} MiB per provider\n" in DOCKERFILE.read_text().replace(" and session", "\n")
    assert service["shm_size"] == "1gb"
    assert 2 * config.ring.max_sessions * each < 2**30, "KIS and Upbit with all their sessions"
    drain_s = tree._SOURCES_S + sum(tree._SINK_S.values()) + tree._SERVICES_S + tree._KILL_S * 12
    assert seconds(service["stop_grace_period"]) > drain_s
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]


def test_prometheus_and_alloy_ask_where_the_others_are(compose: Any) -> None:
    prometheus = yaml.safe_load((OPS / "prometheus" / "prometheus.yml").read_text())
    (job,) = [job for job in prometheus["scrape_configs"] if job["job_name"] == "obs"]
    assert job["static_configs"][0]["targets"] == ["obs:8000"]
    targets = {secret["target"] for secret in compose["services"]["prometheus"]["secrets"]}
    assert job["authorization"]["credentials_file"] in {f"/run/secrets/{name}" for name in targets}
    assert prometheus["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] == ["alertmanager:9093"]
    alloy = (OPS / "alloy" / "config.alloy").read_text()
    assert '"http://loki:3100/' in alloy
    assert "/var/log/containers/" in alloy, "where compose mounts the containers' logs"


def test_the_image_runs_as_nobody_else_and_says_how_it_is() -> None:
    lines = re.sub(r"\\\n\s*", "", DOCKERFILE.read_text()).splitlines()
    last = lines[max(number for number, line in enumerate(lines) if line.startswith("FROM")) :]
    told = {line.split(" ", 1)[0]: line.split(" ", 1)[1] for line in last if re.match("[A-Z]+ ", line)}
    assert told["USER"] == "10001:10001"
    assert told["STOPSIGNAL"] == "SIGTERM"
    assert told["HEALTHCHECK"].endswith('CMD ["obs", "status"]')
    assert told["ENTRYPOINT"] == '["python", "-m", "obs.supervisor"]'
    assert "pip" not in " ".join(last), "installed in the stage before"
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignore
    for line in lines:
        if line.startswith("COPY") and "--from" not in line:
            for source in line.split()[1:-1]:
                assert (ROOT / source).exists()
                assert f"!{source}" in ignore, f"the build does not see {source}"


@pytest.mark.skipif(os.geteuid() != 0, reason="it gives files to other users: needs root")
def test_secrets_are_made_once_and_private(tmp_path: Path, compose: Any) -> None:
    folder = tmp_path / "secrets"

    def make() -> str:
        return subprocess.run([OPS / "compose-secrets", folder], capture_output=True, text=True, timeout=30, check=True).stdout

    said = make()
    texts = {path.name: path.read_text() for path in folder.iterdir()}
    assert {f"./secrets/{name}" for name in texts} == {secret["file"] for secret in compose["secrets"].values()}
    for path in folder.iterdir():
        found = path.stat()
        assert (path.name, stat.S_IMODE(found.st_mode), found.st_uid) == (path.name, 0o600, USERS[path.name])
    assert texts["obs_token"] == texts["prometheus_token"]
    assert texts["obs_pgpass"] == f"postgres:5432:obs:obs:{texts['postgres_password']}\n"
    random = [texts[name] for name in ("obs_token", "postgres_password", "grafana_password", "obs_alert_token")]
    assert len(set(random)) == 4
    assert all(re.fullmatch("[A-Za-z0-9]{43}", text) for text in random)
    assert not [text for text in random if text in said]
    (folder / "kis.env").write_text("KIS_APP_KEY=mine\n")
    (folder / "grafana_password").unlink()
    assert "made" in make()
    assert (folder / "kis.env").read_text() == "KIS_APP_KEY=mine\n"
    assert (folder / "obs_token").read_text() == texts["obs_token"]
    assert (folder / "grafana_password").read_text() != texts["grafana_password"]


def test_a_simulated_exchange_lives_as_a_child_of_process_1() -> None:
    """In a container the supervisor is process 1, which is otherwise the parent of those whose own has died."""
    namespace = ["unshare", *(["-r"] if os.geteuid() else []), "--pid", "--mount-proc", "--fork", "--kill-child"]
    if shutil.which("unshare") is None or subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no process namespace may be made here")
    parent = (
        "import os, subprocess, sys\n"
        "assert os.getpid() == 1\n"
        "words = [sys.executable, '-m', 'obs.sim', 'upbit', '--port', '0', sys.argv[1]]\n"
        "child = subprocess.Popen(words, stdout=subprocess.PIPE)\n"
        "print(child.stdout.readline().decode())\n"
        "child.terminate()\n"
        "print(child.wait())\n"
    )

    def first_line(option: str) -> str:
        words = [*namespace, sys.executable, "-c", parent, option]
        return subprocess.run(words, capture_output=True, text=True, cwd=ROOT, timeout=60, check=True).stdout.splitlines()[0]

    assert '"port"' in first_line("--die-with-parent=1")
    assert first_line("--die-with-parent=77") == "", "its parent is not who started it: that one has died"
