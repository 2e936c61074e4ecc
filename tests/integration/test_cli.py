"""The `obs` command, run as its users run it: real processes over a real archive, pipes that break, files that grow."""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from obs import __version__
from obs.cli import archive
from obs.cli.check import data_directory
from obs.cli.database import last_error
from obs.cli.main import COMMANDS
from obs.config import load
from obs.monitor.host import host_figures
from obs.record.events import gap_line, gap_payload
from obs.record.jsonl import TickLines
from obs.record.schema import TICK
from obs.segment.format import Series
from obs.segment.writer import SegmentOptions, SegmentWriter
from tests.integration.monitor_rig import Feed, configured, running, until

SEOUL = ZoneInfo("Asia/Seoul")
START_NS = 1_769_041_800_000_000_000  # 2026-01-22 00:30:00 UTC
HALF_S = 500_000_000
SYMBOLS = ("005930", "0193T0", "Q500001")
SESSION = "sess_20260122_003000_kis_0a1b"
ROOT = Path(__file__).parents[2]


def rows(first: int, count: int, start_ns: int = START_NS) -> np.ndarray:
    """TICK rows whose every value is a function of their seq."""
    made = np.zeros(count, TICK)
    seq = np.arange(first, first + count)
    made["seq"] = seq
    made["ts_ns"] = made["recv_ns"] = made["event_ns"] = start_ns + (seq + 1) * HALF_S
    made["symbol"] = np.array([SYMBOLS[number % len(SYMBOLS)].encode() for number in seq])
    made["last_price"] = 70_000 + seq
    return made


class Writer:
    """Writes one series as the archive writer does."""

    def __init__(self, data_dir: Path, provider: str = "kis", market: str = "kr_stocks", session: str = SESSION) -> None:
        data_dir.mkdir(exist_ok=True)
        self.writer = SegmentWriter(Series(data_dir, "scalp", provider, market), SegmentOptions(SEOUL, 300, 1 << 20, 1), session)
        self.lines = TickLines(provider, session)

    def add(self, first: int, count: int, start_ns: int = START_NS) -> None:
        made = rows(first, count, start_ns)
        self.writer.append(self.lines.encode(made), first, made["ts_ns"])
        self.writer.flush()


def obs(*words: str | Path, environ: dict[str, str] | None = None, cwd: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run one command to its end."""
    return subprocess.run(command(*words), capture_output=True, timeout=60, env=clean(environ), cwd=cwd or ROOT, check=False)


def command(*words: str | Path) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "obs.cli", *map(str, words)]


def clean(environ: dict[str, str] | None = None) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OBS_", "KIS_"))}
    return kept | {"PYTHONPATH": str(ROOT)} | (environ or {})


def gap(**changes: Any) -> bytes:
    facts: dict[str, Any] = {
        "start_ns": START_NS, "end_ns": START_NS + 45 * 10**9, "scope": "scalp", "reason": "ws_disconnect", "session_id": SESSION,
        "provider": "kis",
    }  # fmt: skip
    place = {name: changes.pop(name, None) for name in ("event_ring", "event_seq")}
    return gap_line(gap_payload(**{**facts, **changes}), **place)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """An archive of 1,400 records of kis in three segments, the last one open, and an event file with gaps."""
    folder = tmp_path / "data"
    writer = Writer(folder)
    writer.add(0, 700)
    writer.add(700, 700)
    events = folder / "system" / "events" / "kis"
    events.mkdir(parents=True)
    lines = [
        gap(event_ring="event", event_seq=3),
        b'{"event_type":"lifecycle","event_ring":"event","event_seq":4}',
        gap(event_ring="event", event_seq=3),  # the same again, as after a crash
        gap(event_ring="event", event_seq=5, symbol="005930", reason="venue_count", lost=17, end_ns=START_NS),
        gap(sink="archive", first_seq=10, last_seq=12, lost=3, reason="ring_lap"),
    ]
    (events / "20260122.jsonl").write_bytes(b"\n".join(lines) + b"\n" + b'{"event_type":"gap_ma')
    return folder


def seqs(output: bytes) -> list[int]:
    return [json.loads(line)["seq"] for line in output.splitlines()]


def test_help_names_every_command_and_shows_examples() -> None:
    everything = obs("--help")
    assert everything.returncode == 0
    for name in COMMANDS:
        assert f"  {name} ".encode() in everything.stdout
    done = obs("tail", "--help")
    assert b"examples:" in done.stdout
    assert b"obs tail -f" in done.stdout
    assert obs("--version").stdout.decode().strip() == f"obs {__version__}"


@pytest.mark.parametrize(
    "words",
    [
        (), ("dance",), ("cat", "--date", "2026"), ("gaps", "--date", "20261399"), ("tail", "-n", "x"), ("cat", "--nope"),
        ("verify", "/nonexistent/file"),
    ],
    ids=lambda words: " ".join(words) or "nothing",
)  # fmt: skip
def test_wrong_usage_is_exit_2(words: tuple[str, ...], tmp_path: Path) -> None:
    done = obs(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == b""
    assert done.stderr


@pytest.mark.parametrize("words", [("audit", "--provider", "kis"), ("--json", "dsn", "now"), ("--nope", "cat")])
def test_what_a_command_does_not_know_is_told_with_its_own_usage(words: tuple[str, ...]) -> None:
    done = obs(*words)
    (name,) = set(words) & set(COMMANDS)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(f"usage: obs {name} ".encode())
    assert f"obs {name}: error: unrecognized arguments: ".encode() in done.stderr


def test_wrong_configuration_is_one_list_and_exit_2(tmp_path: Path) -> None:
    (tmp_path / "obs.toml").write_text("[archive]\nflush_s = 0\n[ring]\ncapacity = 3\n")
    done = obs("gaps", cwd=tmp_path)
    assert done.returncode == 2
    lines = done.stderr.decode().splitlines()
    assert lines[0] == "obs gaps: the configuration has 2 problems"
    assert lines[1].strip() == "obs.toml: archive.flush_s = 0: a number of seconds, 0.05 to 60"
    assert len(lines) == 3


@pytest.mark.parametrize("name", ["cat", "tail", "verify", "gaps", "audit", "status", "slots", "universe"])
def test_no_data_directory_is_could_not_check(name: str, tmp_path: Path) -> None:
    done = obs(name, "--data", tmp_path / "none")
    assert done.returncode == 4
    assert b"no data directory" in done.stderr


@pytest.mark.parametrize("name", ["cat", "tail"])
def test_a_provider_that_was_never_recorded_is_named(name: str, data: Path) -> None:
    done = obs(name, "--data", data, "--provider", "kiss")
    assert (done.returncode, done.stdout) == (4, b"")
    assert b"'kiss'" in done.stderr
    assert b"there are: kis" in done.stderr


@pytest.mark.parametrize("name", ["gaps", "days", "top", "universe", "slots"])
def test_an_unknown_provider_is_no_all_clear(name: str, data: Path) -> None:
    """A word mistyped must not read as: no gaps."""
    (data / "system" / "days").mkdir()
    (data / "system" / "days" / "other.jsonl").touch()
    done = obs(name, "--data", data, "--provider", "nope")
    assert (done.returncode, done.stdout) == (4, b"")
    assert b"nothing is known of a provider 'nope'" in done.stderr
    names = done.stderr.decode().strip().rpartition("there are: ")[2].split(", ")
    assert {"kis", "other"} <= set(names)
    for known in names:
        assert b"nothing is known of a provider" not in obs(name, "--data", data, "--provider", known).stderr


def test_nothing_in_the_files_steers_the_terminal(data: Path) -> None:
    evil, shown = "\x1b[2J\x9b\u202e", r"\x1b[2J\x9b\u202e"
    path = data / "system" / "events" / "kis" / "20260123.jsonl"
    path.write_bytes(gap(event_ring="event", event_seq=9, symbol=evil, provider=evil) + b"\n" + b'{"event_type":"gap_marker"}\n')
    done = obs("gaps", "--data", data)
    assert done.stdout.decode().count(shown) == 3
    assert done.returncode == 1
    (data.parent / "obs.toml").write_text('[providers.kis]\nsymbols = ["005930"]\n')
    kis = {"OBS_CONFIG": str(data.parent / "obs.toml")}
    assert obs("days", "--data", data, "mark", "20260122", "--provider", "kis", "--reason", evil, environ=kis).returncode == 0
    days = obs("days", "--data", data, environ=kis)
    assert days.stdout.decode().count(shown) == 1
    for text in (done.stdout, done.stderr, days.stdout):
        assert not [line for line in text.decode().split("\n") if not line.isprintable()]
    hurt = data / "system" / "events" / "kis" / f"{evil}.jsonl"
    hurt.write_bytes(b"nonsense\n")
    (data / "system" / "sessions").mkdir()
    (data / "system" / "sessions" / f"{evil}.jsonl").touch()
    verdict, none, audit = obs("verify", hurt), obs("verify", f"{hurt}.none"), obs("audit", "--data", data)
    assert (verdict.returncode, none.returncode) == (1, 2)
    assert shown in verdict.stdout.decode()
    assert shown in none.stderr.decode()
    assert shown in audit.stdout.decode()
    for text in (verdict.stdout, none.stderr, audit.stdout, audit.stderr):
        assert not [line for line in text.decode().split("\n") if not line.isprintable()]
    (mark,) = [json.loads(line) for line in obs("days", "--data", data, "--json", environ=kis).stdout.splitlines()]
    assert mark["detail"]["text"] == evil  # a program gets it as it is


def test_health_is_what_the_monitor_says(tmp_path: Path) -> None:
    """One look sees a feed that is well; only who keeps looking can see that it has been quiet for minutes."""
    config = configured(tmp_path)
    feed = Feed(config)
    words = ("--config", tmp_path / "obs.toml", "--json")
    try:
        with running(config) as monitor:
            said = until(lambda: one if (one := monitor.json("/api/status"))["providers"][0]["rates"]["records"] is not None else None)
            status = json.loads(obs("status", *words).stdout)
            assert status["health"] == said["health"]
            assert status["health"]["ok"]
            assert None not in status["providers"][0]["rates"].values()  # a single look has none
        answer = said | {"ts": datetime.now(UTC).isoformat()}
        mute = {"reason": "mute", "provider": "upbit", "text": "connected, but no message for 61 s", "expected": False, "since_ms": 7}
        answer |= {"health": {"ok": False, "status": "red", "reasons": ["mute"], "details": [mute], "since_ms": 7}}
        with monitor_that_says(json.dumps(answer).encode()) as port:
            (config.data_dir / "state" / "http.json").write_text(json.dumps({"host": "127.0.0.1", "port": port, "pid": os.getpid()}))
            for name in ("status", "top"):
                done = obs(name, *words)
                value = json.loads(done.stdout)
                assert (done.returncode, value.get("status", value)["health"]["details"]) == (1, [mute])
                first = obs(name, *words[:2]).stdout.decode().splitlines()
                assert "RED" in first[0]
                assert "upbit mute: connected, but no message for 61 s" in "".join(first[:2])
        done = obs("status", *words)  # nobody answers any more: its own look has to do
        assert "mute" not in json.loads(done.stdout)["health"]["reasons"]
    finally:
        feed.close()


@contextmanager
def monitor_that_says(body: bytes) -> Iterator[int]:
    """What a monitor answers to everybody."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join(10)


def test_the_data_directory_may_stand_before_or_after_the_command(data: Path, tmp_path: Path) -> None:
    after, before = obs("cat", "--data", data), obs("--data", data, "cat")
    (tmp_path / "x.toml").write_text('data_dir = "data"')
    configured = obs("cat", environ={"OBS_CONFIG": str(tmp_path / "x.toml")})
    assert after.stdout == before.stdout == configured.stdout
    assert seqs(after.stdout) == list(range(1400))


def test_cat_filters(data: Path) -> None:
    other = Writer(data, "upbit", "crypto", "sess_20260122_003000_upbit_0000")
    other.add(0, 3)
    assert len(seqs(obs("cat", "--data", data).stdout)) == 1403
    assert len(seqs(obs("cat", "--data", data, "--provider", "upbit").stdout)) == 3
    one = [json.loads(line) for line in obs("cat", "--data", data, "--provider", "kis", "--symbol", "0193T0").stdout.splitlines()]
    assert [line["seq"] for line in one] == list(range(1, 1400, 3))
    assert {line["symbol"] for line in one} == {"0193T0"}
    assert len(seqs(obs("cat", "--data", data, "--date", "2026-01-22").stdout)) == 1403
    assert obs("cat", "--data", data, "--date", "20260123").stdout == b""
    assert obs("cat", "--data", data, "--dataset", "swing").stdout == b""
    none = obs("cat", "--data", data, "--symbol", "ZZZ", "--date", "20260122")
    assert (none.returncode, none.stdout, none.stderr) == (0, b"", b"obs cat: nothing was recorded of ZZZ; files read: 4\n")


def test_cat_of_paths(data: Path) -> None:
    folder = data / "scalp" / "kis" / "kr_stocks" / "20260122"
    first, *_ = sorted(folder.glob("*.zst"))
    by_name = obs("cat", first)
    assert seqs(by_name.stdout) == list(range(600))  # the record of 00:35:00.0 ends the first segment
    assert seqs(obs("cat", folder).stdout) == list(range(1400))
    assert seqs(obs("cat", str(first) + ".open").stdout) == list(range(600))  # sealed since it was listed
    events = obs("cat", data / "system" / "events" / "kis" / "20260122.jsonl")
    assert len(events.stdout.splitlines()) == 5  # the torn last line is not one yet


def test_cat_shows_what_reads_and_names_what_does_not(data: Path) -> None:
    folder = data / "scalp" / "kis" / "kr_stocks" / "20260122"
    writer = Writer(data, session="sess_20260122_010000_kis_ffff")
    late = START_NS + 3600 * 10**9
    writer.add(0, 5, late)
    writer.add(5, 5, late)
    writer.add(10, 5, late)
    writer.writer.seal()
    (hurt,) = folder.glob("10_30_*.zst")
    raw = bytearray(hurt.read_bytes())
    raw[len(raw) // 2] ^= 0x40
    hurt.write_bytes(raw)
    done = obs("cat", hurt)
    assert done.returncode == 1
    assert seqs(done.stdout) == [*range(5), *range(10, 15)]
    assert hurt.name.encode() in done.stderr
    assert b"do not read" in done.stderr
    verdict = obs("verify", hurt, "--json")
    assert verdict.returncode == 1
    report = json.loads(verdict.stdout)
    (damage,) = report["files"][0]["damages"]
    assert 0 < damage["offset"] <= len(raw) // 2 < damage["offset"] + damage["bytes"]
    assert report["files"][0]["holes"] == [[5, 9]]
    text = obs("verify", hurt, folder)
    assert text.returncode == 1
    assert text.stdout.count(b"WRONG") == 2
    assert f"offset {damage['offset']}".encode() in text.stdout


def test_verify_of_a_good_archive(data: Path) -> None:
    done = obs("verify", "--data", data, "--json")
    assert done.returncode == 0, done.stdout
    report = json.loads(done.stdout)
    assert report["ok"] is True
    assert report["totals"]["records"] == 1400 + 1
    assert report["totals"]["gap_lines"] == 4
    kinds = {item["path"].rsplit("/", 1)[-1]: item["kind"] for item in report["files"]}
    assert kinds["20260122.jsonl"] == "text"
    assert [item["sealed"] for item in report["files"] if item["kind"] == "segment"] == [True, True, False]
    assert b"all good" in obs("verify", data).stdout
    assert b"\x1b[" not in obs("verify", data).stdout  # no colours into a pipe


def test_verify_of_a_folder_compares_it_with_its_manifest(data: Path) -> None:
    folder = data / "scalp" / "kis" / "kr_stocks" / "20260122"
    first, second, *_ = sorted(folder.glob("*.zst"))
    manifest = folder / "manifest.jsonl"
    lines = manifest.read_bytes().splitlines(keepends=True)
    first.unlink()
    manifest.write_bytes(b"".join(line for line in lines if second.name.encode() not in line))
    for words in ((folder,), ("--data", data)):
        done = obs("verify", *words, "--json")
        assert done.returncode == 1
        wrong = {Path(item["path"]).name: item["problems"] for item in json.loads(done.stdout)["files"] if not item["ok"]}
        assert wrong == {
            first.name: ["manifest.jsonl names it, but there is no such file"],
            second.name: ["a sealed file without a line in manifest.jsonl"],
        }
    assert obs("verify", second).returncode == 0  # a file by its name may lie anywhere


def test_audit_without_a_database_judges_the_files(data: Path) -> None:
    done = obs("audit", "--data", data, "--json")
    assert done.returncode == 1, done.stderr  # the sessions have no start lines
    report = json.loads(done.stdout)
    assert "no database yet" in report["unknown"][0]
    assert report["mismatches"]


def test_the_log_of_a_database_that_does_not_start_is_cited(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = data / "pg" / "log" / "postgres-20260122_000000.log"
    log.parent.mkdir(parents=True)
    log.write_text("x FATAL:  the first\ny FATAL:  the last\nz LOG:  nothing\n")
    monkeypatch.setattr("obs.pg.cluster.locate", lambda folder: folder)
    assert last_error(load(None, data=data, environ={}, cwd=data)) == "y FATAL:  the last"


def test_verify_names_a_line_that_is_no_json(data: Path) -> None:
    path = data / "system" / "events" / "kis" / "20260122.jsonl"
    good = path.read_bytes()
    path.write_bytes(b'{"a":1}\nnonsense\n' + good)
    done = obs("verify", path)
    assert done.returncode == 1
    assert b"line 2 at offset 8" in done.stdout


def test_gaps_are_listed_once_each(data: Path) -> None:
    done = obs("gaps", "--data", data, "--json")
    assert done.returncode == 0
    gaps = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(item["reason"], item["event_seq"], item["lost"]) for item in gaps] == [
        ("ws_disconnect", 3, None), ("venue_count", 5, 17), ("ring_lap", None, 3),
    ]  # fmt: skip
    text = obs("gaps", "--data", data).stdout.decode()
    assert text.splitlines()[-1] == "kis: 1 gap (2 more inside): 45.0 s together, of all symbols"
    assert "venue_count" in text
    one = obs("gaps", "--data", data, "--json", "--symbol", "0193T0").stdout.splitlines()
    assert len(one) == 2  # those of all symbols concern it too
    (data / "system" / "events" / "kis" / "20260123.jsonl").touch()
    none = obs("gaps", "--data", data, "--date", "20260123")
    assert (none.returncode, none.stdout) == (0, b"no gaps\n")
    assert "within" in gaps[0]
    assert b"no line names 005935: these are of all symbols" in obs("gaps", "--data", data, "--symbol", "005935").stderr
    assert obs("gaps", "--data", data, "--symbol", "005930").stderr == b""
    assert obs("gaps", "--data", data, "--provider", "upbit", "--json").stdout == b""


def test_every_number_of_gaps_is_the_same_number(tmp_path: Path) -> None:
    """On a day and with filters, whoever is asked: a loss is one gap, however many symbols it has cost something."""
    config = configured(tmp_path)
    feed = Feed(config)
    days = [f"{datetime.now(UTC) + timedelta(days=more):%Y%m%d}" for more in (0, 1)]  # midnight may come while it runs
    words = ("--config", tmp_path / "obs.toml", "--data", config.data_dir)
    place = {"provider": "upbit", "event_ring": "event", "session_id": feed.session}

    def tell(number: int, first_s: int, last_s: int, **more: Any) -> None:
        times = {"start_ns": START_NS + first_s * 10**9, "end_ns": START_NS + last_s * 10**9}
        for day in days:
            feed.tell(json.loads(gap(event_seq=number, **place, **times, **more)), day)

    def told(*filters: str) -> tuple[int, str]:
        gaps = [json.loads(line) for line in obs("gaps", *words, *filters, "--json").stdout.splitlines()]
        return sum(not one["within"] for one in gaps), obs("gaps", *words, *filters).stdout.decode().splitlines()[-1]

    def shown() -> tuple[int, int]:
        status = json.loads(obs("status", *words, "--json").stdout)
        top = json.loads(obs("top", *words, "--json").stdout)["status"]
        return status["providers"][0]["gaps"], top["providers"][0]["gaps"]

    try:
        feed.tell(json.loads(gap(event_seq=99, **place)), "20260122")  # of another day
        tell(1, 0, 100)
        for number, symbol in enumerate(("KRW-BTC", "KRW-ETH"), 2):
            tell(number, 10, 20, symbol=symbol, reason="venue_count")
        tell(4, 90, 130, reason="mute")
        tell(5, 200, 210, symbol="KRW-ETH", reason="venue_count")
        whole = "upbit: 3 gaps (2 more inside): 140.0 s together, 130.0 s of it of all symbols, the rest of 1 symbol alone"
        assert told("--date", days[0]) == (3, whole)
        assert told("--date", days[0], "--symbol", "KRW-BTC") == (2, "upbit: 2 gaps (1 more inside): 130.0 s together, of all symbols")
        assert shown() == (3, 3)
        with running(config) as one:
            query = f"/api/gaps?provider=upbit&date={days[0]}"
            assert sum(not line["within"] for line in one.json(query)["gaps"]) == 3
            assert sum(not line["within"] for line in one.json(f"{query}&symbol=KRW-BTC")["gaps"]) == 2
            assert one.json("/api/status")["providers"][0]["gaps"] == 3
            assert shown() == (3, 3)
        tell(6, 129, 131, symbol="KRW-BTC", reason="venue_count", inside="another")  # it spans more than what explains it
        tell(7, 0, 600, scope="swing", reason="short_sweep")
        assert told("--date", days[0]) == (4, whole.replace("3 gaps (2", "4 gaps (3") + "; 1 of sweeps: 600.0 s")
        assert shown() == (4, 4)
        with running(config) as one:
            assert sum(not line["within"] for line in one.json(f"/api/gaps?provider=upbit&date={days[0]}")["gaps"]) == 4
    finally:
        feed.close()


@pytest.mark.parametrize("name", ["gaps", "cat", "audit", "universe"])
def test_a_date_of_which_there_is_nothing_is_told_with_the_nearest_ones(name: str, data: Path) -> None:
    """22:00 UTC is the next day in Seoul: who asks for the date in UTC sees nothing, and must not take that for an all-clear."""
    hint = f"obs {name}: there is nothing of 20260121; the nearest days that have anything: 20260122 (kis)."
    zone = " A date is a day of the market (kis: Asia/Seoul)"
    done = obs(name, "--data", data, "--date", "20260121")
    assert hint + zone in done.stderr.decode()
    assert done.returncode == 4 or name == "audit"  # which judges the sessions of all days
    assert b"no gaps" not in done.stdout
    assert b"there is nothing of" not in obs(name, "--data", data, "--date", "20260122").stderr
    (data / "system" / "events" / "kis" / "20260120.jsonl").write_bytes(b"")
    assert "20260120 (kis) and 20260122 (kis)" in obs(name, "--data", data, "--date", "2026-01-21").stderr.decode()


def test_gaps_are_sorted_by_start_and_those_inside_others_marked(data: Path) -> None:
    path = data / "system" / "events" / "kis" / "20260123.jsonl"
    path.write_bytes(gap(event_ring="event", event_seq=9, start_ns=START_NS - 10**9, end_ns=START_NS - 5 * 10**8) + b"\n")
    gaps = [json.loads(line) for line in obs("gaps", "--data", data, "--json").stdout.splitlines()]
    assert [item["event_seq"] for item in gaps] == [9, 3, 5, None]
    shown = obs("gaps", "--data", data).stdout.decode().splitlines()[1:5]
    assert [line.endswith("(inside)") for line in shown] == [False, False, True, True]


def test_a_gap_line_that_does_not_read_is_found(data: Path) -> None:
    path = data / "system" / "events" / "kis" / "20260121.jsonl"
    path.write_bytes(b'{"event_type":"gap_marker","sink":}\n')
    done = obs("gaps", "--data", data)
    assert done.returncode == 1
    assert b"20260121.jsonl:1" in done.stderr


def test_tail_gives_the_newest_lines_of_all_providers_by_time(data: Path) -> None:
    Writer(data, "upbit", "crypto", "sess_20260122_003000_upbit_0000").add(0, 1399)
    done = obs("tail", "--data", data)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == 10
    assert [line["ts_ns"] for line in lines] == sorted(line["ts_ns"] for line in lines)
    assert {line["provider"] for line in lines} == {"kis", "upbit"}
    assert lines[-1]["seq"] == 1399
    assert seqs(obs("tail", "-n", "0", "--data", data).stdout) == []
    kis = obs("tail", "-n", "805", "--data", data, "--provider", "kis")  # over the edges of files
    assert seqs(kis.stdout) == list(range(595, 1400))
    one = obs("tail", "-n", "3", "--data", data, "--provider", "kis", "--symbol", "Q500001")
    assert seqs(one.stdout) == [1391, 1394, 1397]
    assert obs("tail", "--data", data, "--provider", "nobody").returncode == 4
    none = obs("tail", "-n", "3", "--data", data, "--symbol", "ZZZ")
    assert (none.returncode, none.stdout) == (0, b"")
    assert none.stderr == b"obs tail: nothing was recorded of ZZZ in the two newest days\n"
    assert obs("tail", "-n", "0", "--data", data, "--symbol", "ZZZ").stderr == b""


@pytest.mark.parametrize("name", ["gaps", "cat"])
def test_a_date_of_an_empty_archive_is_could_not_check(name: str, tmp_path: Path) -> None:
    done = obs(name, "--data", tmp_path, "--date", "20260121")
    assert (done.returncode, done.stdout) == (4, b"")
    assert done.stderr.decode() == f"obs {name}: there is nothing of 20260121, nor of any other day\n"


@pytest.fixture
def followers() -> Iterator[list[Following]]:
    """Followers that a test starts; whatever happens to it, none outlives it."""
    started: list[Following] = []
    yield started
    for follower in started:
        follower.close()


class Following:
    """`obs tail -f` in a process, its lines read with a deadline."""

    def __init__(self, *words: str | Path) -> None:
        self.process = subprocess.Popen(command("tail", "-f", *words), stdout=subprocess.PIPE, env=clean(), cwd=ROOT)
        assert self.process.stdout is not None
        self._out = self.process.stdout.fileno()
        os.set_blocking(self._out, False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._out, selectors.EVENT_READ)
        self._rest = b""
        self.lines: list[dict[str, Any]] = []

    def wait(self, count: int, seconds: float = 15) -> list[dict[str, Any]]:
        """Return once `count` lines in all have come."""
        deadline = time.monotonic() + seconds
        while len(self.lines) < count:
            left = deadline - time.monotonic()
            assert left > 0, f"{len(self.lines)} of {count} lines"
            if self._selector.select(left):
                *whole, self._rest = (self._rest + os.read(self._out, 1 << 20)).split(b"\n")
                self.lines += [json.loads(line) for line in whole]
        return self.lines

    def end(self) -> int:
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(10)
        return code

    def close(self) -> None:
        self.process.kill()
        self.process.wait(10)
        self._selector.close()
        assert self.process.stdout is not None
        self.process.stdout.close()


def test_tail_follows_growth_sealing_new_files_and_new_days(tmp_path: Path, followers: list[Following]) -> None:
    data = tmp_path / "data"
    followers.append(follower := Following("--data", data, "-n", "5"))  # before there is any archive
    writer = Writer(data)
    writer.add(0, 3)
    assert [line["seq"] for line in follower.wait(3)] == [0, 1, 2]  # a series that appears is read from its start
    started = time.monotonic()
    writer.add(3, 2)
    follower.wait(5)
    assert time.monotonic() - started < 1.0  # beside the flush interval, which is up to 1 s more
    writer.add(5, 100)
    writer.writer.seal()
    writer.add(105, 700)  # seals and opens as its windows end
    day = START_NS + 86_400 * 10**9
    writer.add(805, 4, day)
    other = Writer(data, "upbit", "crypto", "sess_20260122_003000_upbit_0000")
    other.add(0, 2, day)
    lines = follower.wait(811)
    assert [line["seq"] for line in lines if line["provider"] == "kis"] == list(range(809))
    assert [line["seq"] for line in lines if line["provider"] == "upbit"] == [0, 1]
    assert follower.end() == 0


def test_tail_follows_from_the_end_of_what_was_there(data: Path, followers: list[Following]) -> None:
    followers.append(follower := Following("--data", data, "-n", "2", "--symbol", "005930"))
    assert [line["seq"] for line in follower.wait(2)] == [1395, 1398]
    writer = Writer(data, session="sess_20260122_010000_kis_ffff")  # the next session, into a file of its own
    writer.add(0, 4, START_NS + 2000 * 10**9)
    assert [line["seq"] for line in follower.wait(4)] == [1395, 1398, 0, 3]
    assert follower.end() == 0


def test_a_reader_that_closes_the_pipe_ends_it_quietly(data: Path) -> None:
    for words in (("cat",), ("tail", "-n", "1400"), ("gaps", "--json")):
        process = subprocess.Popen(command(*words, "--data", data), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean(), cwd=ROOT)
        assert process.stdout is not None
        process.stdout.close()
        _, errors = process.communicate(timeout=30)
        assert (process.returncode, errors) == (0, b""), words


def test_tail_ends_when_its_reader_goes(data: Path) -> None:
    process = subprocess.Popen(command("tail", "-f", "--data", data), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean(), cwd=ROOT)
    assert process.stdout is not None
    assert process.stdout.readline()
    process.stdout.close()
    Writer(data, session="sess_20260122_010000_kis_ffff").add(0, 1, START_NS + 2000 * 10**9)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, b"")


def check_config(folder: Path, **http: Any) -> Path:
    path = folder / "obs.toml"
    settings = "".join(f"{name} = {json.dumps(value)}\n" for name, value in ({"port": 0} | http).items())
    path.write_text(
        f'data_dir = "data"\n[http]\n{settings}[ring]\ncapacity = 1024\n[providers.kis]\nsymbols = ["005930"]\n'
        '[providers.upbit]\nsymbols = ["KRW-BTC"]\n'
    )
    return path


def findings(done: subprocess.CompletedProcess[bytes]) -> dict[str, dict[str, str]]:
    return {item["name"]: item for item in json.loads(done.stdout)["findings"]}


def test_check_of_a_good_host(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    keys = {"KIS_APP_KEY": "K" * 36, "KIS_APP_SECRET": "sesame-open-0001"}
    done = obs("check", "--config", check_config(tmp_path), "--json", environ=keys)
    found = findings(done)
    assert {name for name, item in found.items() if item["state"] == "wrong"} <= {"data directory"}, done.stdout  # a tmpfs /tmp
    for name in ("configuration", "provider kis", "provider upbit", "shared memory", "http port", "open files"):
        assert found[name]["state"] in ("good", "warning"), found[name]
    assert "fsync" in found
    assert "sesame-open-0001" not in (done.stdout + done.stderr).decode()
    assert not list((tmp_path / "data").iterdir())  # nothing is left behind
    text = obs("check", "--config", check_config(tmp_path), environ=keys)
    assert text.returncode == done.returncode
    assert b"shared memory" in text.stdout


def test_check_finds_what_is_wrong(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = check_config(tmp_path, port=taken.getsockname()[1])
        done = obs("check", "--config", config, "--data", tmp_path / "obs.toml" / "x", "--json")
    found = findings(done)
    assert done.returncode == 1
    assert found["data directory"]["state"] == "wrong"
    assert found["http port"]["state"] == "wrong"
    assert found["start"]["state"] == "wrong"
    assert "KIS_APP_KEY" in found["start"]["found"]


@pytest.mark.parametrize("place", ["/proc/x", "/proc/x/y"])
def test_check_sees_that_a_data_directory_cannot_be_made(tmp_path: Path, place: str) -> None:
    done = obs("check", "--config", check_config(tmp_path), "--data", place, "--json")
    found = findings(done)["data directory"]
    assert (done.returncode, found["state"]) == (1, "wrong")
    assert found["found"] == f"{place} cannot be made in /proc: No such file or directory"


def test_check_leaves_nothing_of_a_data_directory_to_be_made(tmp_path: Path) -> None:
    config = check_config(tmp_path)
    done = obs("check", "--config", config, "--json")
    assert f"{tmp_path / 'data'} (to be made)" in findings(done)["data directory"]["found"]
    assert list(tmp_path.iterdir()) == [config]


def test_check_and_status_agree_about_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk of 1000 GiB whose last 100 are for root alone: 185 are free, which is a fifth of the other 900, but not of all."""
    real = os.statvfs(tmp_path)
    blocks = [(2**30 // real.f_frsize) * gib for gib in (1000, 285, 185)]
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result((real.f_bsize, real.f_frsize, *blocks, *tuple(real)[5:])))
    figures = host_figures(tmp_path)
    (space,) = (finding for finding in data_directory(tmp_path) if finding.name == "free space")
    assert space.found == "185.0 GiB of 900.0 GiB"
    assert (figures.disk_free_bytes, figures.disk_bytes) == (185 << 30, 900 << 30)
    assert space.state == "good"


def test_check_names_two_credentials_of_one_key_and_never_the_key(tmp_path: Path) -> None:
    config = check_config(tmp_path)
    config.write_text(config.read_text() + '[providers.b]\ntype = "kis"\ncredentials = ["KIS2"]\nsymbols = ["000660"]\n')
    keys = {f"{name}_APP_{what}": "sesame-open-0001" for name in ("KIS", "KIS2") for what in ("KEY", "SECRET")}
    done = obs("check", "--config", config, "--json", environ=keys)
    found = findings(done)["start"]
    assert (done.returncode, found["state"]) == (1, "wrong")
    same = "providers.b.credentials: KIS2 has the same key as KIS of providers.kis.credentials: one key allows one connection"
    assert found["found"].endswith(same)
    assert b"sesame" not in done.stdout + done.stderr


def test_check_names_a_database_that_is_away(tmp_path: Path) -> None:
    done = obs("check", "--config", check_config(tmp_path), "--json", environ={"OBS_DSN": "postgresql://u:sesame@127.0.0.1:1/x"})
    (state,) = (item for name, item in findings(done).items() if name.startswith("database"))
    assert state["state"] == "wrong"
    assert "sesame" not in (done.stdout + done.stderr).decode()


def test_dsn_and_migrate_of_a_configured_database(empty_dsn: str, tmp_path: Path) -> None:
    environ = {"OBS_DSN": empty_dsn}
    assert obs("dsn", environ=environ).stdout.decode().strip() == empty_dsn
    lacking = obs("check", "--config", check_config(tmp_path), "--json", environ=environ)
    (state,) = (item for name, item in findings(lacking).items() if name.startswith("database"))
    assert (state["state"], "0001_" in state["found"]) == ("warning", True)
    first = json.loads(obs("migrate", "--json", environ=environ).stdout)
    assert first["applied"] == list(range(1, first["version"] + 1))
    again = obs("migrate", environ=environ)
    assert again.returncode == 0
    assert b"nothing to apply" in again.stdout


def test_dsn_of_an_embedded_database_that_is_not_there(tmp_path: Path) -> None:
    done = obs("dsn", "--data", tmp_path)
    assert done.returncode == 4
    assert b"no database yet" in done.stderr


def test_the_embedded_database_is_started_and_stopped_again(tmp_path: Path) -> None:
    data = tmp_path / "data"
    made = obs("migrate", "--data", data, "--json")
    assert made.returncode == 0, made.stderr
    told = obs("dsn", "--data", data, "--json")
    assert json.loads(told.stdout)["running"] is False
    assert b"is down now" in told.stderr
    held = subprocess.Popen(command("dsn", "--hold", "--data", data), stdout=subprocess.PIPE, env=clean(), cwd=ROOT)
    assert held.stdout is not None
    dsn = held.stdout.readline().decode().strip()
    assert dsn == json.loads(told.stdout)["dsn"]
    beside = obs("migrate", "--data", data)  # uses the one that runs, and leaves it running
    assert b"nothing to apply" in beside.stdout
    assert json.loads(obs("dsn", "--data", data, "--json").stdout)["running"] is True
    held.send_signal(signal.SIGTERM)
    assert held.wait(30) == 0
    held.stdout.close()
    assert json.loads(obs("dsn", "--data", data, "--json").stdout)["running"] is False


def test_files_of_one_second_sort_by_number() -> None:
    names = ["10_00_00_10.jsonl.zst", "10_00_00.jsonl.zst", "10_05_00.jsonl.zst.open", "10_00_00_2.jsonl.zst"]
    ordered = sorted((Path("20260122") / name for name in names), key=archive.opening)
    assert [path.name for path in ordered] == [names[1], names[3], names[0], names[2]]
