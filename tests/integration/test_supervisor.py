"""The supervisor with real children: one owner, exit codes, restarts, heartbeats, ordered stops, and what it prints.

What is lost and what is not when processes are killed is asked in tests/fault.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from supervised import ROOT, Supervised, Supervisor, until
from terminals import terminal

from obs.config.process import lock_path
from obs.pg import postmaster
from obs.pg.cluster import locate
from obs.ring import fence
from obs.segment.sessions import read_sessions
from obs.shm import Board

Make = Callable[..., Supervised]
PROVIDER_ROLES = ("archive", "load", "poll", "feed")
SERVICES = {"obs monitor services", "obs keeper services"}
STOP_S = 10.0


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Supervised] = []

    def begin(dsn: str | None, *providers: str, **tables: dict[str, Any]) -> Supervised:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(Supervised(folder, dsn, providers or ("kis", "upbit"), **tables))
        return made[-1]

    yield begin
    for one in made:
        one.close()


@pytest.fixture
def shm() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="obs-test-", dir="/dev/shm"))
    yield folder
    shutil.rmtree(folder)


def run(*words: str, cwd: Path = ROOT, environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a supervisor that is expected to end by itself."""
    command = [sys.executable, "-m", "obs.supervisor", *words]
    kept = {key: value for key, value in os.environ.items() if key not in ("OBS_DSN", "OBS_CONFIG", "NOTIFY_SOCKET")}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=90, check=False, cwd=cwd, env=kept | {"PYTHONPATH": str(ROOT)} | (environ or {})
    )


# --- what it refuses


def test_configuration_errors_come_in_one_list_and_nothing_is_started(tmp_path: Path) -> None:
    config = tmp_path / "obs.toml"
    config.write_text('[archive]\nflush_s = 0\nunknown = 1\n[loader]\nrows = "many"\n[providers.Bad]\ntype = "x"\n')
    done = run("--config", str(config), "--data", str(tmp_path / "data"))
    assert done.returncode == 2
    assert done.stdout == ""
    for text in ("archive.flush_s = 0", "archive.unknown", "loader.rows", "providers.Bad"):
        assert text in done.stderr, done.stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("text", "words", "told"),
    [
        ("", (), "providers: none is enabled"),
        ('[providers.upbit]\nsymbols = ["KRW-BTC"]\n', ("--provider", "kis"), "no such section"),
        ('[providers.upbit]\nenabled = false\nsymbols = ["KRW-BTC"]\n', ("--provider", "upbit"), "is not enabled"),
        ('[providers.kis]\nsymbols = ["005930"]\n', (), "KIS_APP_KEY, KIS_APP_SECRET not set"),
        ('[providers.upbit]\nvenue = "sg"\n', (), "they cannot be selected"),
    ],
)
def test_a_start_that_cannot_work_is_refused(tmp_path: Path, text: str, words: tuple[str, ...], told: str) -> None:
    config = tmp_path / "obs.toml"
    config.write_text(text)
    done = run("--config", str(config), "--data", str(tmp_path / "data"), *words)
    assert done.returncode == 2, done.stderr
    assert told in done.stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--recordings", "x"), "--recordings goes with --demo"),
        (("--script", "x"), "--script goes with --demo"),
        (("--provider", "kis", "--services"), "not allowed with"),
        (("--for", "soon"), "not a number of seconds"),
        (("--for", "-5"), "not a number of seconds"),
        (("--json",), "--json goes with --for"),
        (("--no-such-word",), "unrecognized arguments"),
        (("--demo", "--recordings", "/nonexistent"), "a folder that exists"),
        (("--demo", "--script", "/nonexistent"), "a file of script lines"),
        (("--config", "/nonexistent.toml"), "/nonexistent.toml"),
    ],
)
def test_usage_errors(tmp_path: Path, words: tuple[str, ...], told: str) -> None:
    done = run(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert told in done.stderr


SCRIPTS = {
    '{"at_s":1,"do":"mute"}\n# a remark\n\n{"at_s":1,"do":"mut"}': (4, "do = 'mut': allowed are drop, close, rst, mute"),
    '{"at_s":1,"do":"mute","seconds":9}': (1, "seconds = 9: mute takes at_s, do, from, every_s, conn, symbol, s"),
    '{"at_s":"1","do":"mute"}': (1, "at_s = '1': allowed is int or float"),
    '{"at_s":1,"do":"malformed","variant":"wrong"}': (1, "variant = 'wrong': allowed are cut, huge"),
    '{"at_s":1,"do":"mute"': (1, "not JSON"),
    '["mute"]': (1, "['mute']: allowed is a JSON object"),
    '{"at_s":1,"do":"drop"}\n{"at_s":1,"do":"halt","symbol":"005930"}': (2, "do = 'halt': needs --universe, which the demo has not"),
}


@pytest.mark.parametrize("text", SCRIPTS)
@pytest.mark.parametrize("how", ["--script", "[demo]"])
def test_a_script_that_the_exchanges_would_refuse_starts_nothing(text: str, how: str, tmp_path: Path) -> None:
    """Said at once, with the line and what is known: an exchange that ends at its start would only be a venue that is away."""
    (tmp_path / "faults.jsonl").write_text(text + "\n")
    (tmp_path / "obs.toml").write_text('[demo]\nscript = "faults.jsonl"\n' if how == "[demo]" else "")
    done = run("--demo", "--for", "1", *(("--script", "faults.jsonl") if how == "--script" else ()), cwd=tmp_path)
    number, told = SCRIPTS[text]
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.startswith(f"obs: the script is wrong\n  {tmp_path}/faults.jsonl:{number}: {told}"), done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["faults.jsonl", "obs.toml"]


@pytest.mark.parametrize("content", ["system/sessions/kis.jsonl", "scalp/kis/x", "pg/PG_VERSION"])
def test_the_demo_refuses_a_directory_with_real_sessions(tmp_path: Path, content: str) -> None:
    place = tmp_path / "data" / content
    place.parent.mkdir(parents=True)
    place.write_text("real")
    done = run("--demo", "--data", str(tmp_path / "data"))
    assert done.returncode == 2
    assert "--demo refuses a data directory with real sessions" in done.stderr
    assert sorted(path for path in (tmp_path / "data").rglob("*") if path.is_file()) == [place]


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/x", "locked"])
@pytest.mark.parametrize("demo", [True, False])
def test_a_data_directory_that_cannot_be_used_is_told_in_a_sentence(tmp_path: Path, place: str, demo: bool) -> None:
    """`locked`: one that has a file where the folder of the locks must be."""
    (tmp_path / "file").write_text("mine")
    (tmp_path / "locked").mkdir()
    (tmp_path / "locked" / ".lock").touch()
    (tmp_path / "locked" / ".demo").touch()
    (tmp_path / "obs.toml").write_text("" if demo else '[providers.upbit]\nsymbols = ["KRW-BTC"]\n')
    done = run(*(("--demo",) if demo else ()), "--data", place, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    first, second = done.stderr.splitlines()
    assert first == "obs: the data directory cannot be used"
    assert second.startswith(f"  data_dir = {tmp_path / place}: a folder that uid {os.getuid()} can make and write, but {tmp_path / place}")
    assert second.endswith("mend that, or name another with --data or data_dir")
    assert (tmp_path / "file").read_text() == "mine"


def test_one_key_under_two_names_starts_nothing(tmp_path: Path) -> None:
    """Each would throw the other out, for ever; alone each of them starts: the other may be on another host."""
    (tmp_path / "obs.toml").write_text(
        '[providers.kis]\nsymbols = ["005930"]\n[providers.b]\ntype = "kis"\ncredentials = ["KIS2"]\nsymbols = ["000660"]\n'
    )
    keys = {f"{name}_APP_{what}": "sesame" for name in ("KIS", "KIS2") for what in ("KEY", "SECRET")}
    done = run("--data", "data", cwd=tmp_path, environ=keys)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert "providers.b.credentials: KIS2 has the same key as KIS of providers.kis.credentials" in done.stderr
    assert "sesame" not in done.stderr
    assert not (tmp_path / "data").exists()


def test_too_little_shared_memory_starts_nothing(make: Make, tmp_path: Path) -> None:
    """No database either: it takes memory of its own."""
    tree = make(None, "upbit", ring={"dir": str(tmp_path / "none")})
    supervisor = tree.start()
    assert supervisor.wait() in (1, 2)
    assert not (tree.data / "pg").exists()


# --- one owner


def test_one_owner_of_each_provider_and_of_the_services(make: Make, empty_dsn: str) -> None:
    tree = make(empty_dsn)
    whole = tree.start()
    whole.ready()
    for words in ((), ("--provider", "kis"), ("--services",)):
        second = tree.start(*words)
        assert second.wait() == 3
        (told,) = second.log("supervisor_failed")
        assert told["error"] == "OwnedElsewhere"
        assert str(whole.pid) in told["text"]
    assert len(whole.children()) == 2 * len(PROVIDER_ROLES) + len(SERVICES)
    assert whole.stop() < STOP_S


def test_killed_it_takes_its_children_along_and_the_next_one_waits_for_them(make: Make, empty_dsn: str) -> None:
    tree = make(empty_dsn, "upbit")
    first = tree.start()
    first.ready()
    children = first.children()
    assert set(children) == {*(f"obs {role} upbit" for role in PROVIDER_ROLES), *SERVICES}
    first.process.kill()
    second = tree.start("--provider", "upbit")
    until("all of them are gone", lambda: not first.left(), 5)
    tree.recording("upbit")
    assert second.stop() < STOP_S
    assert len(read_sessions(tree.data, "upbit")) == 2
    assert all(session.ended is not None for session in read_sessions(tree.data, "upbit")), "the old one was drained and ended too"


def test_a_lock_held_by_a_child_of_a_dead_tree_is_waited_for(make: Make, empty_dsn: str) -> None:
    """A child that is stuck in the kernel outlives its supervisor: no second owner of a connection before it is gone."""
    tree = make(empty_dsn, "upbit")
    (tree.data / ".lock").mkdir(parents=True)
    program = f"import fcntl, sys; f = open({str(lock_path(tree.data, 'upbit')) + '.children'!r}, 'w'); fcntl.flock(f, fcntl.LOCK_SH)"
    child = subprocess.Popen([sys.executable, "-c", program + "; print(1, flush=True); sys.stdin.read()"], stdin=-1, stdout=-1)
    assert child.stdout is not None
    assert child.stdin is not None
    child.stdout.readline()
    supervisor = tree.start("--provider", "upbit")
    until("it says that it waits", lambda: supervisor.alive() and supervisor.log("waiting_for_children"))
    assert supervisor.children() == {}
    assert read_sessions(tree.data, "upbit") == []
    child.stdin.close()
    child.wait(10)
    child.stdout.close()
    tree.recording("upbit")
    supervisor.stop()


# --- children that end


def starts_of(supervisor: Supervisor, role: str) -> list[dict[str, Any]]:
    return [line for line in supervisor.log("process_started") if line["child"] == role]


def test_a_killed_child_is_restarted_and_the_waits_grow(make: Make, empty_dsn: str) -> None:
    tree = make(empty_dsn, "upbit")
    supervisor = tree.start()
    supervisor.ready()
    others = {title: pid for title, pid in supervisor.children().items() if title != "obs poll upbit"}
    pid, killed = supervisor.child("obs poll upbit"), []
    for _ in range(3):
        os.kill(pid, signal.SIGKILL)
        killed.append(time.monotonic())
        pid = supervisor.child("obs poll upbit", not_pid=pid)
        killed[-1] = time.monotonic() - killed[-1]
    assert killed[2] > 1.0, "0.1 s, 0.5 s, 1 s"
    assert killed[0] < 0.9
    died = [line for line in supervisor.log("process_died") if line["child"] == "poll"]
    assert [(line["signal"], line["state"]) for line in died] == [("SIGKILL", "backoff")] * 3
    assert [line["restarts"] for line in starts_of(supervisor, "poll")] == [0, 1, 2, 3]
    assert {title: pid for title, pid in supervisor.children().items() if title != "obs poll upbit"} == others, "nobody else noticed"
    supervisor.stop()


def test_a_wrong_configuration_is_final_for_that_child_alone(make: Make, empty_dsn: str, tmp_path: Path) -> None:
    """Exit code 2: the secrets went away while it ran. The others go on; in the end the exit code tells."""
    secrets = tmp_path / "secrets"
    tree = make(empty_dsn, "kis")
    environ = tree.environ()
    secrets.write_text("".join(f"{name}={environ[name]}\n" for name in ("DEMO_KIS_APP_KEY", "DEMO_KIS_APP_SECRET")))
    secrets.chmod(0o600)
    tree.config.write_text(tree.config.read_text() + f'secrets_file = "{secrets}"\n')
    supervisor = tree.start()
    supervisor.ready()
    tree.recording("kis")
    secrets.chmod(0o644)
    os.kill(supervisor.child("obs feed kis"), signal.SIGKILL)
    fatal = until("the feed is given up", lambda: [one for one in supervisor.log("process_died") if one["state"] == "fatal"])
    assert [(line["child"], line["exit_code"]) for line in fatal] == [("feed", 2)]
    count = len(starts_of(supervisor, "feed"))
    poll = supervisor.child("obs poll kis")
    os.kill(poll, signal.SIGTERM)  # asked by a stranger: no reason to stay away
    until("poll needs its secrets too", lambda: len([one for one in supervisor.log("process_died") if one["state"] == "fatal"]) == 2)
    assert len(starts_of(supervisor, "feed")) == count
    assert {"obs archive kis", "obs load kis", *SERVICES} == set(supervisor.children())
    supervisor.process.send_signal(signal.SIGTERM)
    assert supervisor.wait() == 2


@pytest.mark.parametrize("words", [(), ("--provider", "upbit")])
def test_an_incompatible_state_is_final_and_ends_a_supervisor_of_that_provider(make: Make, empty_dsn: str, words: tuple[str, ...]) -> None:
    """Exit code 3: the board was written by another version. Under systemd such a unit must end and not be restarted."""
    tree = make(empty_dsn, "upbit")
    supervisor = tree.start(*words)
    supervisor.ready()
    tree.recording("upbit")
    (board,) = tree.shm.glob("obs-*-board")
    with board.open("r+b") as file:
        file.write(b"OBSBRD99")
    os.kill(supervisor.child("obs feed upbit"), signal.SIGKILL)
    until("the feed is given up", lambda: [one for one in supervisor.log("process_died") if one.get("exit_code") == 3])
    if not words:
        assert "obs archive upbit" in supervisor.children()
        supervisor.process.send_signal(signal.SIGTERM)
    assert supervisor.wait() == 3


# --- silence


def test_a_silent_child_gets_sigabrt_which_shows_where_it_hangs(make: Make, empty_dsn: str) -> None:
    tree = make(empty_dsn, "upbit", supervisor={"heartbeat_s": 1.5})
    supervisor = tree.start("--provider", "upbit")
    supervisor.ready()
    pid = supervisor.child("obs poll upbit")
    os.kill(pid, signal.SIGSTOP)
    (silent,) = until("its silence is noticed", lambda: supervisor.log("process_silent"))
    assert (silent["child"], silent["child_pid"], silent["limit_s"]) == ("poll", pid, 1.5)
    os.kill(pid, signal.SIGCONT)  # now it can take the signal that waits for it
    supervisor.child("obs poll upbit", not_pid=pid)
    (died,) = supervisor.log("process_died")
    assert died["signal"] == "SIGABRT"
    (stacks,) = supervisor.log("process_stacks")
    assert (stacks["child"], stacks["child_pid"], stacks["lines"][0]) == ("poll", pid, "Fatal Python error: Aborted")
    assert any("most recent call first" in line for line in stacks["lines"])
    assert any("obs/roles/poll.py" in line for line in stacks["lines"])
    assert all(line.startswith("{") for line in supervisor.stderr.read_text().splitlines()), "something else stands between the log lines"
    supervisor.stop()


def test_one_that_does_not_take_sigabrt_is_killed(make: Make, empty_dsn: str) -> None:
    tree = make(empty_dsn, "upbit", supervisor={"heartbeat_s": 1.5})
    supervisor = tree.start("--provider", "upbit")
    supervisor.ready()
    pid = supervisor.child("obs poll upbit")
    os.kill(pid, signal.SIGSTOP)
    supervisor.child("obs poll upbit", not_pid=pid)
    (died,) = supervisor.log("process_died")
    assert died["signal"] in ("SIGKILL", "SIGABRT")
    assert len(supervisor.log("process_silent")) == 1
    tree.recording("upbit")
    supervisor.stop()


# --- stops


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_ordered_stop(make: Make, empty_dsn: str, number: signal.Signals) -> None:
    tree = make(empty_dsn)
    supervisor = tree.start()
    supervisor.ready()
    tree.recording("kis", "upbit")
    supervisor.children()
    if number is signal.SIGINT:  # as a terminal does: to the whole group
        began = time.monotonic()
        os.killpg(supervisor.pid, number)
        assert supervisor.wait() == 0, supervisor.tail()
        assert time.monotonic() - began < STOP_S
    else:
        assert supervisor.stop() < STOP_S
    assert supervisor.left() == []
    ended = [(line["child"], line["exit_code"]) for line in supervisor.log("process_ended")]
    assert sorted(ended) == sorted([(role, 0) for role in PROVIDER_ROLES] * 2 + [("monitor", 0), ("keeper", 0)])
    order = [role for role, _ in ended]
    assert max(order.index("feed"), order.index("poll")) < min(order.index(role) for role in ("archive", "load"))
    assert set(order[-2:]) == {"monitor", "keeper"}
    assert supervisor.log("process_died") == []
    for provider in ("kis", "upbit"):
        (session,) = read_sessions(tree.data, provider)
        assert session.ended is not None
        assert session.ended["tick"] >= 0
        assert not list((tree.data / "scalp" / provider).rglob("*.open")), "sealed"
    assert {path.name.rpartition("-")[2] for path in tree.shm.iterdir()} == {"board"}
    assert supervisor.log("stopped")[0]["clean"] is True


def test_an_ordered_start_and_stop_is_no_alarm(make: Make, empty_dsn: str) -> None:
    """Also the second time, when the board still holds what the feed before has said."""
    tree = make(empty_dsn)
    for _ in range(2):
        supervisor = tree.start()
        until("health is green", lambda: supervisor.alive() and supervisor.log("health_green"))  # noqa: B023
        supervisor.stop()
        assert supervisor.log("health_red") == []


def gaps(tree: Supervised, provider: str) -> list[tuple[str, bool]]:
    """(reason, whether it lasted longer than a moment) of the gaps that the feed told."""
    return [(gap["reason"], gap["gap_seconds"] > 0.2) for gap in tree.events(provider, "gap_marker") if gap["sink"] is None]


def test_a_stop_is_no_loss(make: Make, empty_dsn: str) -> None:
    tree = make(empty_dsn)
    supervisor = tree.start()
    supervisor.ready()
    tree.recording("kis", "upbit")
    supervisor.stop()
    assert tree.events("kis", "gap_marker") == tree.events("upbit", "gap_marker") == [], supervisor.tail()


def test_a_venue_that_is_away_at_the_stop_was_a_loss_until_then(make: Make, empty_dsn: str) -> None:
    tree = make(empty_dsn, "upbit")
    supervisor = tree.start("--provider", "upbit")
    supervisor.ready()
    tree.recording("upbit")
    tree.venues["upbit"][0].terminate()
    until("an attempt has failed", lambda: supervisor.alive() and supervisor.log("connect_failed"))
    supervisor.stop()
    assert gaps(tree, "upbit") == [("ws_disconnect", True)]


def test_connected_again_but_not_subscribed_at_the_stop_was_a_loss_until_then(make: Make, empty_dsn: str) -> None:
    """Only the socket is back: the loss goes on until the venue sends again."""
    tree = make(empty_dsn, "upbit")
    supervisor = tree.start("--provider", "upbit")
    supervisor.ready()
    tree.recording("upbit")
    tree.do("upbit", "mute", s=60)
    tree.do("upbit", "drop")

    board = Board.attach(Board.path(tree.shm, tree.data, "upbit"), fence)

    def again() -> bool:
        (link,) = board["link"].read_json()
        return link["connected"] and link["connection_no"] == 2

    until("the socket is back", again)
    board.close()
    supervisor.stop()
    assert gaps(tree, "upbit") == [("ws_disconnect", True)]


def test_asked_to_stop_while_it_starts(make: Make, empty_dsn: str) -> None:
    tree = make(empty_dsn)
    supervisor = tree.start()
    until("its first child", lambda: supervisor.alive() and supervisor.log("process_started"))
    assert supervisor.stop() < STOP_S
    assert supervisor.left() == []


# --- by itself


def test_for_some_seconds_the_ledger_is_the_last_thing_on_stdout(make: Make, empty_dsn: str) -> None:
    tree = make(empty_dsn)
    supervisor = tree.start("--for", "3")
    assert supervisor.wait(60) == 0, supervisor.tail()
    first, stopping = (next(one for one in supervisor.log() if one["event"] == event) for event in ("ready", "stopping"))
    assert stopping["ts"] > first["ts"]
    lines = supervisor.stdout.read_text().splitlines()
    assert lines, "a table"
    text = "\n".join(lines)
    for word in ("kis", "upbit", "published", "archived"):
        assert word in text, text
    assert not any(line.startswith("{") for line in lines), "logs go to stderr"
    assert supervisor.log()[-1]["event"] == "stopped"
    assert {path.name.rpartition("-")[2] for path in tree.shm.iterdir()} == {"board"}


def test_for_some_seconds_counts_from_the_first_record(make: Make, empty_dsn: str) -> None:
    """A venue that is away: it gives up waiting for a first record in the end, and stops as asked before that."""
    tree = make(empty_dsn, "upbit")
    tree.venues["upbit"][0].terminate()
    supervisor = tree.start("--for", "0.5")
    supervisor.ready()
    until("an attempt has failed", lambda: supervisor.alive() and supervisor.log("connect_failed"))
    assert supervisor.log("stopping") == []
    supervisor.process.send_signal(signal.SIGTERM)
    assert supervisor.wait() == 0
    assert "upbit" in supervisor.stdout.read_text()


def test_the_demo_runs_where_there_is_nothing_and_again_in_its_own_directory(tmp_path: Path, empty_dsn: str, shm: Path) -> None:
    config = tmp_path / "obs.toml"
    config.write_text(f'[http]\nport = 0\n[ring]\ndir = "{shm}"\ncapacity = 4096\n[demo]\nrate = 100.0\n')
    for form in ((), ("--json",)):
        done = run("--demo", "--config", str(config), "--for", "1.5", *form, cwd=tmp_path, environ={"OBS_DSN": empty_dsn})
        assert done.returncode == 0, done.stderr[-4000:]
        assert "LEDGER CLOSES" in done.stdout if not form else json.loads(done.stdout)["ok"] is True
    data = tmp_path / "demo-data"
    assert len(read_sessions(data, "kis")) == 2
    assert sorted(path.name for path in (data / "sim").iterdir()) == ["kis.jsonl", "upbit.jsonl"]


def test_ctrl_c_on_the_terminal_is_no_loss_of_the_demo(tmp_path: Path, empty_dsn: str, shm: Path) -> None:
    """The terminal sends it to the whole group: the exchanges must outlive the feeds. A second demo is told in a sentence, not in JSON."""
    config = tmp_path / "obs.toml"
    config.write_text(f'[http]\nport = 0\n[ring]\ndir = "{shm}"\ncapacity = 4096\n[demo]\nrate = 400.0\n')
    data = tmp_path / "data"
    words = [sys.executable, "-m", "obs.supervisor", "--demo", "--config", str(config), "--data", str(data)]
    # Its own terminal, which controls it as that of a shell does: the leader of a session has opened it.
    line = f'exec 0<>"$(tty)"; exec {shlex.join(words)}'
    log = tmp_path / "log"  # not on the terminal, where lines of several processes may run into each other
    with terminal(shell=f"{line} 2>{shlex.quote(str(log))}", OBS_DSN=empty_dsn) as one:
        until("it is ready", lambda: log.exists() and b'"event":"ready"' in log.read_bytes(), 60)
        for provider in ("kis", "upbit"):
            until(f"records of {provider}", lambda name=provider: list(data.glob(f"scalp/{name}/*/*/*.open")), 60)
        with terminal(shell=line, OBS_DSN=empty_dsn) as second:
            assert second.end(60)[0] == 3
            said = second.screen.decode().replace("\r\n", "\n")
        assert said == (
            f"obs: another supervisor (pid {one.process.pid}) runs kis in {data} already: "
            "stop it first, or name another data directory with --data\n"
        )
        one.types(b"\x03")
        assert one.end(60)[0] == 0, log.read_text()
    logged = [orjson.loads(text) for text in log.read_bytes().splitlines() if text.startswith(b"{")]
    ended = [(end["child"], end.get("exit_code")) for end in logged if end["event"] in ("process_ended", "process_died")]
    assert [end for end in ended if end[0] == "feed"] == [("feed", 0)] * 2
    order = [child for child, _ in ended]
    assert order.count("exchange") == 2
    assert max(at for at, child in enumerate(order) if child == "feed") < order.index("exchange")
    events = [orjson.loads(text) for path in data.glob("system/events/*/*.jsonl") for text in path.read_bytes().splitlines()]
    assert len(events) > 10
    assert not [event for event in events if event["event_type"] == "gap_marker"]


# --- apart


def test_provider_and_services_started_apart_work_on_one_directory(make: Make) -> None:
    """The embedded database belongs to the services; a provider records with it or without."""
    tree = make(None)
    kis = tree.start("--provider", "kis")
    tree.recording("kis")
    assert set(kis.children()) == {f"obs {role} kis" for role in PROVIDER_ROLES}
    assert not postmaster.processes(locate(tree.data / "pg") / "cluster"), "a provider starts no database"
    services = tree.start("--services")
    services.ready()
    assert set(services.children()) == SERVICES
    upbit = tree.start("--provider", "upbit")
    tree.recording("upbit")
    until("kis has found the database", lambda: kis.alive() and kis.log("loader_ready"), 60)
    until("so has upbit", lambda: upbit.alive() and upbit.log("loader_ready"), 60)
    status = orjson.loads(
        subprocess.run(
            [sys.executable, "-m", "obs.cli", "status", "--config", str(tree.config), "--data", str(tree.data), "--json"],
            capture_output=True, check=False, cwd=ROOT, env=tree.environ(), timeout=30,
        ).stdout
    )  # fmt: skip
    shown = {(one["role"], one["provider"]) for one in status["processes"]}
    assert shown >= {(role, name) for role in PROVIDER_ROLES for name in tree.venues}
    assert kis.stop() < STOP_S
    assert postmaster.processes(locate(tree.data / "pg") / "cluster"), "a provider stops no database"
    tree.recording("upbit")
    assert upbit.stop() < STOP_S
    assert services.stop() < STOP_S
    assert not postmaster.processes(locate(tree.data / "pg") / "cluster")
    audit = [sys.executable, "-m", "obs.cli", "audit", "--config", str(tree.config), "--data", str(tree.data), "--json"]
    done = subprocess.run(audit, capture_output=True, check=False, cwd=ROOT, env=tree.environ(), timeout=120)
    assert done.returncode == 0, done.stdout.decode()[-3000:] + done.stderr.decode()[-3000:]


# --- what it keeps and tells


def test_budget_and_tokens_are_kept_for_nobody_else_to_read(make: Make, empty_dsn: str) -> None:
    tree = make(empty_dsn, "kis")
    supervisor = tree.start("--provider", "kis")
    supervisor.ready()
    tree.recording("kis")
    path = tree.data / "state" / "kis.json"
    kept = until("budget and token are kept", lambda: path.exists() and (value := json.loads(path.read_bytes()))["tokens"] and value)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    (token,) = kept["tokens"].values()
    assert kept["budget"]["DEMO_KIS"]["tokens"] < 10
    assert token["value"] not in supervisor.stderr.read_text()
    supervisor.stop()
    for block in tree.shm.iterdir():  # the host went down: a new board is filled from the file
        block.unlink()
    again = tree.start("--provider", "kis")
    again.ready()
    tree.recording("kis")
    assert again.log("token_refreshed") == [], "a venue rations tokens: the old one still holds"
    after = json.loads(path.read_bytes())
    assert after["tokens"] == kept["tokens"]
    again.stop()
    assert json.loads(path.read_bytes())["budget"]["DEMO_KIS"]["last_ns"] > kept["budget"]["DEMO_KIS"]["last_ns"]


def test_systemd_is_told(make: Make, empty_dsn: str) -> None:
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        address = str(Path(folder, "notify"))
        manager.bind(address)
        manager.settimeout(40)
        tree = make(empty_dsn, "upbit")
        supervisor = tree.start("--provider", "upbit", environ={"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000000"})
        told: list[str] = []
        while not told or told[-1] != "READY=1":
            told.append(manager.recv(4096).decode())
        until("it says so too", lambda: supervisor.log("ready"))
        times = []
        for _ in range(4):
            told.append(manager.recv(4096).decode())
            times.append(time.monotonic())
        assert all(text.startswith("WATCHDOG=1\nSTATUS=") for text in told[-4:])
        assert told[-1].endswith("4 of 4 processes running")
        assert times[-1] - times[0] < 3.0, "twice as often as it must"
        supervisor.stop()
        manager.setblocking(False)
        while told[-1] != "STOPPING=1":
            told.append(manager.recv(4096).decode())


def test_systemd_hears_of_it_while_a_session_is_renewed(make: Make, empty_dsn: str) -> None:
    """Whoever removes a ring makes the turn wait for all phases of a stop: that is progress too, and no reason to be ended."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        address = str(Path(folder, "notify"))
        manager.bind(address)
        manager.settimeout(40)
        tree = make(empty_dsn, "upbit")
        supervisor = tree.start("--provider", "upbit", environ={"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "2000000"})
        while manager.recv(4096) != b"READY=1":
            pass
        tree.recording("upbit")
        os.kill(supervisor.child("obs feed upbit"), signal.SIGSTOP)  # its phase takes the whole three seconds
        for ring in tree.shm.glob("*-tick"):
            ring.unlink()
        longest, last = 0.0, time.monotonic()
        while not read_sessions(tree.data, "upbit")[1:]:
            manager.recv(4096)
            longest, last = max(longest, time.monotonic() - last), time.monotonic()
        assert supervisor.log("rings_removed")
        assert supervisor.log("process_killed")
        assert longest < 2.0, "the watchdog would have ended it"
        supervisor.stop()


def test_files_are_for_the_owner_and_his_group(make: Make, empty_dsn: str) -> None:
    tree = make(empty_dsn, "upbit")
    supervisor = tree.start("--provider", "upbit")
    supervisor.ready()
    tree.recording("upbit")
    supervisor.stop()
    for path in tree.data.rglob("*"):
        assert path.stat().st_mode & 0o007 == 0, path
