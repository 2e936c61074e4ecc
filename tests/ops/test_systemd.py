"""The unit files: judged by systemd-analyze, held against the deadlines of the program, and run for real under a systemd of their own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from machine import ENVIRON, INSTALL, PYTHON, ROOT, SITE, Machine, copy_sources, until

from obs.config import demo_environ
from obs.config.process import SERVICES
from obs.pg import embedded
from obs.supervisor import database, main, tree
from obs.supervisor.limits import files_needed
from obs.supervisor.plan import PROVIDER_ROLES, SERVICE_ROLES

UNITS = ROOT / "ops" / "systemd"
SERVICE_UNITS = ("obs@.service", "obs-services.service")
EXPOSURE = 3.0
PORT = 9101
CONFIG = f"""
data_dir = "/var/lib/obs"
[ring]
capacity = 4096
[archive]
flush_s = 0.2
[providers.kis]
credentials = ["DEMO_KIS"]
symbols = ["005930", "000660"]
hours = "always"
rest_url = "http://127.0.0.1:{PORT}"
ws_url = "ws://127.0.0.1:{PORT}"
"""
# The machine's Python finds its libraries so; and a hang is seen in seconds.
DROP_IN = f"""
[Service]
Environment=PYTHONPATH={SITE} LD_LIBRARY_PATH={ENVIRON["LD_LIBRARY_PATH"]}
WatchdogSec=4
RestartSec=100ms
"""
# What a unit's sandbox must refuse, and what it must not; prints what is otherwise.
PROBE = '''
import ctypes, mmap, os, socket
def refused(what, call, *args):
    try:
        call(*args)
    except OSError:
        return
    print("ALLOWED", what)
def allowed(what, call, *args):
    try:
        call(*args)
    except OSError as error:
        print("REFUSED", what, error)
def write(path):
    with open(path, "w") as file:
        file.write("x")
    os.unlink(path)
for path in ("/etc/x", "/usr/x", "/opt/obs/x", "/root/x", "/var/lib/x", "/proc/sys/kernel/hostname"):
    refused(path, write, path)
refused("homes", os.listdir, "/root")
refused("disks", open, "/dev/vda")
refused("kernel log", open, "/dev/kmsg")
refused("packets", socket.socket, socket.AF_PACKET, socket.SOCK_RAW)
refused("routes", socket.socket, socket.AF_NETLINK, socket.SOCK_RAW)
refused("code in data", mmap.mmap, -1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, mmap.PROT_WRITE | mmap.PROT_EXEC)
refused("chroot", os.chroot, "/")
refused("priority", os.setpriority, os.PRIO_PROCESS, 0, 5)
libc = ctypes.CDLL(None, use_errno=True)
def unshare():
    if libc.unshare(0x10000000):
        raise OSError(ctypes.get_errno(), "unshare")
refused("namespaces", unshare)
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
if int(status["CapBnd"], 16) or status["NoNewPrivs"] != "1":
    print("ALLOWED privileges", status["CapBnd"], status["NoNewPrivs"])
if any(name.isdigit() and os.stat("/proc/" + name).st_uid == 0 for name in os.listdir("/proc")):
    print("ALLOWED others' processes")
allowed("data", write, "/var/lib/obs/x")
allowed("shared memory", write, "/dev/shm/x")
allowed("temporary files", write, "/tmp/x")
print("PROBED")
'''


def settings(unit: str) -> dict[str, list[str]]:
    """Return key -> values of a unit file, in their order."""
    found: dict[str, list[str]] = {}
    for line in (UNITS / unit).read_text().splitlines():
        key, sign, value = line.partition("=")
        if sign and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def analyze(*words: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze: run ops/test-deps as root")
    return subprocess.run(["systemd-analyze", *words], capture_output=True, text=True, timeout=60, check=False)


def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    for path in UNITS.iterdir():
        # A program that is there, in place of the one that ops/install would put there.
        text = path.read_text().replace("/opt/obs/current/bin/python", sys.executable)
        assert path.suffix == ".target" or sys.executable in text
        (tmp_path / path.name).write_text(text)
    done = analyze("verify", "--man=no", *(str(tmp_path / name) for name in ("obs@upbit.service", "obs-services.service", "obs.target")))
    ours = [line for line in (done.stdout + done.stderr).splitlines() if "obs" in line]
    assert done.returncode == 0, ours
    assert ours == []
    # And it would say so, if there were anything.
    unit = tmp_path / "obs-services.service"
    unit.write_text(unit.read_text().replace("KillMode=mixed", "KillMode=gently"))
    assert "kill mode" in analyze("verify", "--man=no", str(unit)).stderr


@pytest.mark.parametrize("unit", SERVICE_UNITS)
def test_little_of_the_host_is_exposed(unit: str, tmp_path: Path) -> None:
    def exposure(path: Path) -> float:
        done = analyze("security", "--offline=true", "--no-pager", str(path))
        found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
        assert found, done.stdout + done.stderr
        return float(found[1])

    assert exposure(UNITS / unit) < EXPOSURE
    bare = tmp_path / unit
    bare.write_text("[Service]\nExecStart=/bin/true\n")
    assert exposure(bare) > EXPOSURE, "it tells a unit without a sandbox from one with it"


def test_both_units_have_the_same_sandbox() -> None:
    one, other = (settings(unit) for unit in SERVICE_UNITS)
    own = {
        "Description", "After", "Wants", "ExecStart", "EnvironmentFile", "TimeoutStopSec", "CPUWeight", "IOWeight", "OOMScoreAdjust",
        "SystemCallFilter", "SyslogIdentifier",
    }  # fmt: skip
    assert {key: value for key, value in one.items() if key not in own} == {key: value for key, value in other.items() if key not in own}
    assert [*one["SystemCallFilter"], "@chown"] == other["SystemCallFilter"]


def test_shared_memory_and_children_outlive_what_they_must() -> None:
    for unit in SERVICE_UNITS:
        told = settings(unit)
        assert told["RemoveIPC"] == ["no"], "it would remove the rings with what is not archived yet"
        assert told["OOMPolicy"] == ["continue"], "the end of one child is the supervisor's to judge"
        assert told["Restart"] == ["always"]
        assert told["StartLimitIntervalSec"] == ["0"], "a collector is patient for ever; the venue is protected by the budget"
        assert told["RestartPreventExitStatus"] == ["2 3"]
        assert told["NotifyAccess"] == ["main"]
        assert told["Type"] == ["notify"]
        assert int(told["LimitNOFILE"][0]) >= files_needed(16, 20)


def test_deadlines_of_the_units_are_longer_than_those_of_the_program() -> None:
    def seconds(unit: str, key: str) -> int:
        return int(settings(unit)[key][0])

    drain_s = tree._SOURCES_S + sum(tree._SINK_S.values()) + tree._KILL_S * (len(PROVIDER_ROLES) + 1)
    # A stop may come while rings that were removed are being renewed, which takes as long.
    assert seconds("obs@.service", "TimeoutStopSec") >= 2 * drain_s + 10
    server_s = 2 * embedded.FAST_STOP_S + 3 * embedded.IMMEDIATE_STOP_S + 2 * embedded.ORPHANS_S
    database_s = database._STOP_S + server_s
    services_s = tree._SERVICES_S + tree._KILL_S * (len(SERVICE_ROLES) + 1)
    assert seconds("obs-services.service", "TimeoutStopSec") >= database_s + services_s + 10
    for unit in SERVICE_UNITS:
        assert seconds(unit, "TimeoutStartSec") >= main._CHILDREN_S + main._READY_S + 30
        assert seconds(unit, "WatchdogSec") >= 2 * drain_s, "renewing rings is progress, and killing a child waits"


# A supervisor whose turn hangs as soon as a file is there. Its other threads go on.
_HANGING = """
import os, sys, time
from obs.supervisor import main, tree
turn = tree.Tree.turn
def hanging_turn(self):
    turn(self)
    while os.path.exists(sys.argv[1]):
        time.sleep(0.1)
tree.Tree.turn = hanging_turn
sys.exit(main.main(["--services", "--config", sys.argv[2]]))
"""


def test_only_a_turn_that_is_made_feeds_the_watchdog(tmp_path: Path) -> None:
    """Its log, its state file and the database have threads of their own: none of them may speak for it."""
    flag, config = tmp_path / "hang", tmp_path / "obs.toml"
    config.write_text(f'[http]\nport = 0\n[ring]\ndir = "{tmp_path}"\n[database]\ndsn = "postgresql://obs@127.0.0.1:1/obs"\n')
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        address = str(Path(folder, "notify"))
        manager.bind(address)
        manager.settimeout(60)
        environ = {**os.environ, "NOTIFY_SOCKET": address, "WATCHDOG_USEC": "2000000"}
        words = [sys.executable, "-c", _HANGING, str(flag), str(config)]
        with subprocess.Popen(words, cwd=ROOT, env=environ, stderr=subprocess.PIPE, text=True) as process:
            try:
                while manager.recv(4096) != b"READY=1":
                    pass
                for _ in range(4):
                    assert manager.recv(4096).startswith(b"WATCHDOG=1\n")
                flag.touch()
                manager.settimeout(2)  # the watchdog's limit
                told = 0
                with contextlib.suppress(TimeoutError):
                    while manager.recv(4096):
                        told += 1
                        assert told < 4, "it hangs, and says that it does not"
            finally:
                process.send_signal(signal.SIGABRT)  # as systemd does
            assert process.stderr is not None
            text = process.stderr.read()
    assert process.returncode == -signal.SIGABRT
    assert "in hanging_turn" in text, "where it hung"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return copy_sources(tmp_path)


@pytest.fixture
def machine(source: Path) -> Iterator[Machine]:
    made = Machine(source)
    yield made
    made.close()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_life_of_a_service(machine: Machine, source: Path) -> None:
    """Install, start, a child's death, a supervisor that hangs, upgrade while it runs, stop, uninstall: nothing is lost untold."""
    for unit in SERVICE_UNITS:
        machine.write(f"/etc/systemd/system/{unit}.d/test.conf", DROP_IN)
    keys = "".join(f'{name}="{value}"\n' for name, value in demo_environ().items())
    machine.write("/etc/obs/obs.toml", CONFIG, "0644")
    machine.write("/etc/obs/kis.env", f"# the simulated account\n{keys}", "0644")
    said = machine.run("/opt/source/ops/install", environ=INSTALL)
    assert "make /etc/obs/kis.env private" in said
    assert "write /etc/obs/obs.toml" not in said, "what an operator wrote is his"
    assert int(machine.run("id", "-u", "obs")) < 1000, "logind spares the shared memory of system users alone"
    modes = machine.run("stat", "-c", "%a %U %G %n", "/etc/obs", "/etc/obs/kis.env", "/var/lib/obs").splitlines()
    assert modes == ["750 root obs /etc/obs", "600 root root /etc/obs/kis.env", "750 obs obs /var/lib/obs"]
    again = machine.run("/opt/source/ops/install", environ=INSTALL)
    assert not [line for line in again.splitlines() if line.startswith("obs: ") and " is in " not in line], "nothing was left to do"
    probe_sandbox(machine)
    checked = machine.run("obs", "check", "--json", environ=ENVIRON, check=False)
    assert "DEMO_KIS" not in checked, "the command of the host has the secrets of the units"
    assert json.loads(checked)["ok"] is True

    # The venue stands outside the units, as a real one does.
    libraries = {**ENVIRON, "PYTHONPATH": f"/opt/source:{SITE}"}
    words = (str(PYTHON), "-P", "-m", "obs.sim", "kis", "--port", str(PORT), "--source", "numbered", "--rate", "60")
    venue = machine.popen(*words, environ=libraries, stdout=subprocess.PIPE)
    assert venue.stdout is not None
    assert json.loads(venue.stdout.readline())["port"] == PORT

    # It returns when all of them have said READY=1.
    machine.run("systemctl", "enable", "--now", "obs.target", "obs-services", "obs@kis")
    for unit, count in (("obs@kis", len(PROVIDER_ROLES)), ("obs-services", len(SERVICE_ROLES))):
        assert machine.show(unit, "ActiveState") == "active"
        until("all run", lambda name=unit, n=count: machine.show(name, "StatusText") == f"{n} of {n} processes running")
    machine.run("systemctl", "start", "obs@nobody", check=False)
    assert (machine.show("obs@nobody", "Result"), machine.show("obs@nobody", "NRestarts")) == ("exit-code", "0"), "no restart helps"

    records(machine)
    feed = pid_of(machine, "obs feed kis")
    machine.run("kill", "-KILL", str(feed))
    until("another feed", lambda: pid_of(machine, "obs feed kis") not in (0, feed))
    (died,) = machine.events("obs@kis", "process_died")
    assert (died["child"], died["signal"], died["PRIORITY"]) == ("feed", "SIGKILL", "4"), "the journal has the level"
    assert {line["PRIORITY"] for line in machine.events("obs@kis", "process_started")} == {"6"}

    status = json.loads(machine.run("obs", "status", "--json", environ=ENVIRON, check=False))
    assert status["running"], "the command sees the units' processes"
    assert {one["role"] for one in status["processes"]} >= {*PROVIDER_ROLES, *SERVICE_ROLES}

    # A supervisor that hangs says nothing, although its children go on.
    hung = machine.show("obs@kis", "MainPID")
    machine.run("kill", "-STOP", hung)
    until("the watchdog", lambda: machine.show("obs@kis", "NRestarts") == "1")
    until("it runs again", lambda: machine.show("obs@kis", "ActiveState") == "active")
    texts = [str(entry["MESSAGE"]) for entry in machine.journal("obs@kis")]
    assert [text for text in texts if "Watchdog timeout" in text]
    assert [text for text in texts if "_turn_until_asked" in text], "where it hung is in the journal"
    records(machine)

    # Upgrade: what runs is stopped in order, set to the new release, started.
    init = source / "obs" / "__init__.py"
    init.write_text(init.read_text().replace('__version__ = "', '__version__ = "9.'))
    said = machine.run("/opt/source/ops/install", environ=INSTALL)
    assert re.findall(r"^obs: (stop|set|start) ", said, re.M) == ["stop", "set", "start"]
    assert machine.show("obs@kis", "ActiveState") == "active"
    assert len(machine.run("ls", "/opt/obs/releases").split()) == 2, "the one before is kept"
    records(machine)

    machine.run("systemctl", "stop", "obs.target", "obs@*", "obs-services")
    ended = machine.events("obs@kis", "stopped")
    assert [line["clean"] for line in ended] == [True, True], "at the upgrade and now"
    assert machine.show("obs-services", "Result") == "success"
    left = machine.run("ls", "/dev/shm").split()
    assert [name for name in left if not name.endswith("-board")] == [], "every ring was drained; the board keeps the budget"
    audit = machine.run("obs", "audit", environ=ENVIRON, check=False)
    assert "LEDGER CLOSES" in audit, audit
    assert machine.exit_code == 0
    sessions = machine.run("cat", "/var/lib/obs/system/sessions/kis.jsonl").splitlines()
    versions = [line["code_version"] for line in map(json.loads, sessions) if line["event"] == "start"]
    assert [version.startswith("9.") for version in versions] == [False, False, True]

    machine.run("/opt/source/ops/uninstall", "--purge", stdin="yes\n", check=False)
    assert machine.exit_code == 1, "only the path of the data is a confirmation"
    machine.run("test", "-e", "/var/lib/obs/scalp")
    said = machine.run("/opt/source/ops/uninstall")
    machine.run("test", "-e", "/var/lib/obs/scalp")
    assert "are left" in said
    machine.run("/opt/source/ops/uninstall", "--purge", stdin="/var/lib/obs\n")
    places = "/var/lib/obs /etc/obs /opt/obs /etc/systemd/system/obs* /dev/shm/obs-*"
    gone = machine.run("sh", "-c", f"ls -d {places} 2>/dev/null; id obs", check=False)
    assert [line for line in gone.splitlines() if not line.endswith("no such user") and not line.endswith(".d")] == []


def probe_sandbox(machine: Machine) -> None:
    """Run PROBE in place of the supervisor, in the sandbox of each unit."""
    for unit in SERVICE_UNITS:
        text = machine.run("cat", f"/etc/systemd/system/{unit}")
        text = re.sub(r"(?m)^ExecStart=.*$", "ExecStart=/opt/obs/current/bin/python -P /opt/probe.py", text)
        text = text.replace("Type=notify", "Type=oneshot").replace("Restart=always", "Restart=no").replace("%i", "kis")
        machine.write("/opt/probe.py", PROBE)
        machine.write("/etc/systemd/system/probe.service", text)
        machine.write("/etc/systemd/system/probe.service.d/test.conf", DROP_IN)
        machine.run("systemctl", "daemon-reload")
        machine.run("systemctl", "start", "probe", check=False)
        said = [str(entry["MESSAGE"]) for entry in machine.journal("probe") if entry.get("_TRANSPORT") == "stdout"]
        assert said == ["PROBED"], f"{unit}: {said}"
        machine.run("rm", "-r", "/etc/systemd/system/probe.service", "/etc/systemd/system/probe.service.d")
        machine.run("journalctl", "--rotate")
        machine.run("journalctl", "--vacuum-files=1")
    machine.run("systemctl", "daemon-reload")


def pid_of(machine: Machine, title: str) -> int:
    for line in machine.run("ps", "-e", "-o", "pid=,args=").splitlines():
        pid, _, words = line.strip().partition(" ")
        if words.strip() == title:
            return int(pid)
    return 0


def records(machine: Machine, size: int = 200) -> None:
    """Wait until the archive has grown by so many bytes."""

    def archived() -> int:
        return int(machine.run("sh", "-c", "cat /var/lib/obs/scalp/kis/*/*/*.zst* 2>/dev/null | wc -c"))

    before = archived()
    until("more records", lambda: archived() >= before + size)


def test_the_owner_of_the_services_is_no_name_of_a_provider() -> None:
    assert SERVICES == "services", "obs-services.service and obs@services.service would be two supervisors of one owner"
