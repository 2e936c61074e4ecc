"""Which days are anomalies: a table of evidence and verdicts, the log of marks, and the way from lines on disk to marks."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from obs.clock import MINUTE_NS, NS
from obs.config import ProviderConfig
from obs.lifecycle.days import Cover, Evidence, HostMinute, Loss, judge, judge_host, longest_run, moment_of, take, union
from obs.lifecycle.marks import MARKED, UNMARKED, Mark, append, changes, marked, path_of
from obs.log import Log
from obs.market.calendar import Calendar, Session
from obs.monitor.host import HostFigures
from obs.record.events import event_line, gap_payload, make_event
from obs.roles.day_watch import DayWatch, HostWatch

OPEN = 1_769_040_000 * NS  # 2026-01-22 00:00 UTC, 09:00 in Seoul
HOURS = (OPEN, OPEN + 6 * 3600 * NS + 1800 * NS)
DAY = 20260122
SESSION = "sess_20260122_000000_kis_ab12"


def loss(start_s: float, seconds: float, reason: str = "ws_disconnect", **more: Any) -> Loss:
    return Loss(OPEN + int(start_s * NS), OPEN + int((start_s + seconds) * NS), reason, **more)


def covered(*rates: float, first: int = 0) -> dict[int, Cover]:
    return {OPEN + (first + place) * MINUTE_NS: Cover(41 * 60 * rate, 41) for place, rate in enumerate(rates)}


CASES: dict[str, tuple[Evidence, dict[str, dict[str, Any]]]] = {
    "nothing": (Evidence(), {}),
    "19 reconnects": (Evidence(reconnects=19), {}),
    "20 reconnects": (Evidence(reconnects=20), {"reconnects": {"reconnects": 20}}),
    "the feed has paused": (Evidence(paused=1), {"paused": {"times": 1}}),
    "disconnected for 599 s in all": (Evidence(losses={loss(100 * at, 59.5) for at in range(10)} | {loss(5000, 4)}), {}),
    "disconnected for 600 s in all": (
        Evidence(losses={loss(100 * at, 59.5, "mute" if at % 2 else "ws_disconnect") for at in range(10)} | {loss(5000, 5)}),
        {"disconnected": {"seconds": 600.0}},
    ),
    "two connections at the same time are one": (Evidence(losses={loss(0, 299), loss(1, 298), loss(150, 149)}), {}),
    "one gap of 60 s": (Evidence(losses={loss(0, 60)}), {}),
    "two gaps of 60 s": (Evidence(losses={loss(0, 60), loss(100, 60)}), {"gaps": {"gaps": 2, "longest_s": 60.0}}),
    "two that touch are one": (Evidence(losses={loss(0, 60), loss(60, 60)}), {}),
    "one of 60 s, one of 59": (Evidence(losses={loss(0, 60), loss(100, 59.9)}), {}),
    "one gap of 300 s": (Evidence(losses={loss(0, 300, "ring_lap")}), {}),
    "one gap of over 300 s": (Evidence(losses={loss(0, 300.5, "ring_lap")}), {"critical_gap": {"seconds": 300.5}}),
    "the same, of a dead host": (Evidence(losses={loss(0, 301, "host_death", scope="all")}), {"critical_gap": {"seconds": 301.0}}),
    "one connection of several, symbol by symbol": (
        Evidence(losses={loss(0, 400, symbol=f"{number:06d}") for number in range(20)}), {"critical_gap": {"seconds": 400.0}}
    ),
    "a symbol that is refused all day": (Evidence(losses={loss(60 * at, 60, "refused", symbol="005930") for at in range(300)}), {}),
    "all are refused all day": (
        Evidence(losses={loss(120 * at, 60, "refused") for at in range(10)}),
        {"gaps": {"gaps": 10, "longest_s": 60.0}, "disconnected": {"seconds": 600.0}},
    ),
    "steps of the venue's count": (Evidence(losses={loss(600 * at, 200, "venue_count", symbol="005930") for at in range(9)}), {}),
    "sweeps that came short": (Evidence(losses={loss(600 * at, 150, "short_sweep", scope="swing") for at in range(9)}), {}),
    "a disk that was full is no disconnect": (Evidence(losses={loss(0, 200, "disk_full"), loss(300, 290, "disk_full")}),
                                              {"gaps": {"gaps": 2, "longest_s": 290.0}}),
    "a night without the host": (Evidence(losses={loss(-12 * 3600, 12 * 3600, "host_death", scope="all")}), {}),
    "a night and the first minute": (Evidence(losses={loss(-12 * 3600, 12 * 3600 + 60, "host_death", scope="all")}), {}),
    "after the close": (Evidence(losses={loss(6.5 * 3600, 4000)}), {}),
    "four thin minutes on end": (Evidence(cover=covered(0.96, 0.9, 0.5, 0.969)), {}),
    "five thin minutes on end": (
        Evidence(cover=covered(1, 0.96, 0.9, 0.5, 0.969, 0.96, 1)),
        {"record_rate": {"minutes": 5, "from_ns": OPEN + MINUTE_NS, "lowest": 0.5}},
    ),
    "five thin minutes with a good one among them": (Evidence(cover=covered(0.9, 0.9, 0.9, 0.97, 0.9, 0.9)), {}),
    "five thin minutes with one that nobody saw among them": (Evidence(cover=covered(0.9, 0.9) | covered(0.9, 0.9, 0.9, first=3)), {}),
    "five minutes without slots": (Evidence(cover={OPEN + at * MINUTE_NS: Cover(0.0, 0) for at in range(9)}), {}),
    "thin before the opening": (Evidence(cover=covered(*[0.5] * 9, first=-9)), {}),
    "thin over the close": (Evidence(cover=covered(*[0.5] * 9, first=6 * 60 + 30 - 4)), {}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_verdicts(name: str) -> None:
    evidence, expected = CASES[name]
    assert judge(evidence, HOURS) == expected


def test_on_a_day_without_trading_nothing_is_lost() -> None:
    evidence = Evidence(reconnects=20, paused=1, losses={loss(0, 4000), loss(9000, 4000)}, cover=covered(*[0.1] * 9))
    assert set(judge(evidence, None)) == {"reconnects", "paused"}
    assert judge_host([HostMinute(OPEN, 1.0, 1.0)] * 20, None) == {}


def busy(*cpu: float, disk: float = 0.5, first: int = 0) -> list[HostMinute]:
    return [HostMinute(OPEN + (first + place) * MINUTE_NS, share, disk) for place, share in enumerate(cpu)]


@pytest.mark.parametrize(
    ("minutes", "expected"),
    [
        ([], {}),
        (busy(*[0.85] * 9), {}),
        (busy(*[0.85] * 10), {"cpu": {"minutes": 10, "from_ns": OPEN}}),
        (busy(*[0.849] * 20), {}),
        (busy(*[0.9] * 9, 0.1, *[0.9] * 9), {}),
        (busy(*[0.9] * 9, first=-1), {}),
        (busy(*[0.9] * 12, first=-2), {"cpu": {"minutes": 10, "from_ns": OPEN}}),
        (busy(0.1, disk=0.80), {}),
        (busy(0.1, disk=0.801), {"disk": {"used": 0.801}}),
        (busy(0.1, disk=0.99, first=-1), {}),
    ],
)
def test_the_host(minutes: list[HostMinute], expected: dict[str, Any]) -> None:
    assert judge_host(minutes, HOURS) == expected


def test_unions_and_runs_against_plain_counting() -> None:
    rng = random.Random(7)
    for _ in range(300):
        spans = [(start, start + rng.randrange(1, 9)) for start in (rng.randrange(40) for _ in range(rng.randrange(9)))]
        joined = union(spans)
        assert {at for first, last in joined for at in range(first, last)} == {at for first, last in spans for at in range(first, last)}
        assert all(one[1] < other[0] for one, other in itertools.pairwise(joined))
        there = sorted(rng.sample(range(30), rng.randrange(12)))
        runs = [there[a:b] for a in range(len(there)) for b in range(a + 1, len(there) + 1) if there[b - 1] - there[a] == b - 1 - a]
        longest = longest_run([number * MINUTE_NS for number in there])
        assert len(longest) == max(map(len, runs), default=0)
        assert [number // MINUTE_NS for number in longest] in [[], *runs]


# --- lines to evidence


def line_of(kind: str, payload: dict[str, Any], ts_ns: int) -> dict[str, Any]:
    line: dict[str, Any] = orjson.loads(event_line(make_event(kind, ts_ns, payload), SESSION, "kis", "event"))
    return line


def gap(start_s: float, seconds: float, reason: str = "ws_disconnect", scope: str = "scalp", **more: Any) -> dict[str, Any]:
    start, end = OPEN + int(start_s * NS), OPEN + int((start_s + seconds) * NS)
    payload = gap_payload(start_ns=start, end_ns=end, scope=scope, reason=reason, session_id=SESSION, provider="kis", **more)
    return line_of("gap_marker", payload, end)


COUNTS = {"minute_ns": OPEN, "of_session": SESSION, "n": 3, "symbol": None, "messages": 9, "slots": 41, "covered_s": 2400.5}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (gap(0, 60), Evidence(losses={loss(0, 60)})),
        (gap(0, 60, symbol="005930", reason="refused"), Evidence(losses={loss(0, 60, "refused", symbol="005930")})),
        (gap(0, 60, "ring_lap", sink="archive", first_seq=1, last_seq=2, lost=2), Evidence(losses={loss(0, 60, "ring_lap")})),
        (gap(0, 60, "ring_lap", sink="database", first_seq=1, last_seq=2, lost=2), Evidence()),
        (gap(0, 60, "venue_count", inside="sess/event/1"), Evidence()),
        (line_of("reconnection_event", {"result": "SUCCESS", "attempt_no": 2}, OPEN), Evidence(reconnects=1)),
        (line_of("reconnection_event", {"result": "FAIL", "attempt_no": 2}, OPEN), Evidence()),
        (line_of("lifecycle", {"what": "recording_paused", "anomaly_day": True}, OPEN), Evidence(paused=1)),
        (line_of("lifecycle", {"what": "anomaly_day", "reason": "cpu", "day": DAY}, OPEN), Evidence()),
        (line_of("counts", COUNTS, OPEN + MINUTE_NS), Evidence(cover={OPEN: Cover(2400.5, 41)})),
        (line_of("counts", {key: COUNTS[key] for key in COUNTS if key != "covered_s"}, OPEN), Evidence()),
        ({"event_type": "gap_marker", "gap_start_ns": "x", "reason": "mute"}, Evidence()),
        ({}, Evidence()),
    ],
)
def test_what_a_line_tells(line: dict[str, Any], expected: Evidence) -> None:
    evidence = Evidence()
    assert take(line, evidence) is (expected != Evidence())
    assert evidence == expected


def test_buckets_of_one_minute_add_up_and_a_gap_told_twice_is_one() -> None:
    evidence = Evidence()
    for covered_s in (1000, 1400):
        take(line_of("counts", COUNTS | {"covered_s": covered_s, "slots": 40 + covered_s // 1400}, OPEN), evidence)
    assert evidence.cover == {OPEN: Cover(2400, 41)}
    assert [take(gap(0, 60), evidence) for _ in range(2)] == [True, False]


def test_of_which_instants_a_line_speaks() -> None:
    assert moment_of(gap(0, 60)) == (OPEN, OPEN + 60 * NS)
    assert moment_of(line_of("counts", COUNTS, OPEN + 7 * MINUTE_NS)) == (OPEN + 1, OPEN + 1)
    assert moment_of(line_of("lifecycle", {}, OPEN)) == (OPEN, OPEN)
    assert moment_of({}) is None


# --- the log of marks


def mark(day: int = DAY, reason: str = "manual", **more: Any) -> Mark:
    return replace(Mark("kis", "kr_stocks", day, reason, {"text": "x"}, "hand", OPEN), **more)


def test_marks_are_added_taken_back_and_added_again(tmp_path: Path) -> None:
    path = path_of(tmp_path, "kis")
    assert marked(path) == {}
    assert append(path, MARKED, mark())
    assert not append(path, MARKED, mark(detail={"text": "another"}))
    assert append(path, MARKED, mark(reason="cpu"))
    assert append(path, UNMARKED, mark())
    assert not append(path, UNMARKED, mark())
    assert set(marked(path)) == {(DAY, "cpu")}
    assert append(path, MARKED, mark(detail={"text": "again"}))
    assert marked(path)[DAY, "manual"].detail == {"text": "again"}
    told = changes(path)
    assert [(change.what, change.mark.reason) for change in told] == [
        ("marked", "manual"), ("marked", "cpu"), ("unmarked", "manual"), ("marked", "manual"),
    ]  # fmt: skip
    assert changes(path, told[1].end) == told[2:]
    assert told[-1].end == path.stat().st_size
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("tail", [b'{"what":"mar', b"\0\0\0", b'{"what":"marked"}\n{'])
def test_a_line_that_was_not_finished_is_no_change(tmp_path: Path, tail: bytes) -> None:
    path = path_of(tmp_path, "kis")
    append(path, MARKED, mark())
    with path.open("ab") as file:
        file.write(tail)
    assert append(path, MARKED, mark(20260123))
    assert set(marked(path)) == {(DAY, "manual"), (20260123, "manual")}
    assert path.read_bytes().endswith(b"\n")


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from obs.lifecycle.marks import *\n"
        "print('here', flush=True); sys.stdin.read()\n"
        "for day in range(80):\n"
        "    append(path_of(Path(sys.argv[1]), 'kis'), MARKED, Mark('kis', 'm', day, sys.argv[2], {}, 'hand', 1))\n"
        "    append(path_of(Path(sys.argv[1]), 'kis'), MARKED, Mark('kis', 'm', day, 'same', {}, 'hand', 1))"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    children = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), f"of {number}"], **pipes) for number in range(4)]  # type: ignore[call-overload]
    for child in children:
        assert child.stdout.readline() == b"here\n"
    for child in children:  # all at once
        child.stdin.close()
    for child in children:
        with child:
            assert child.wait(60) == 0
    expected = {(day, reason) for day in range(80) for reason in ("same", *(f"of {number}" for number in range(4)))}
    assert set(marked(path_of(tmp_path, "kis"))) == expected
    assert len(changes(path_of(tmp_path, "kis"))) == len(expected), "each once"


# --- from the files to the marks


KIS = ProviderConfig("kis", "kis", True, "kr_stocks", "krx", "", "", (), None, ("005930",), ("trade",), 41, "sample", "calendar")
CALENDAR = Calendar({("kr_stocks", "krx"): [Session(DAY, HOURS[0], HOURS[0], HOURS[1], HOURS[1])]}, 20260101, 20260131)


class Files:
    """system/events of one provider."""

    def __init__(self, folder: Path) -> None:
        self.data = folder
        self.folder = folder / "system" / "events" / "kis"
        self.folder.mkdir(parents=True)
        self.log = Log("keeper", "services", descriptor=os.open(os.devnull, os.O_WRONLY))
        self.watch = self.another()

    def another(self, provider: ProviderConfig = KIS) -> DayWatch:
        return DayWatch(self.data, provider, self.log)

    def write(self, *lines: dict[str, Any], day: int = DAY) -> None:
        with (self.folder / f"{day}.jsonl").open("ab") as file:
            file.writelines(orjson.dumps(line) + b"\n" for line in lines)

    def step(self) -> set[tuple[int, str]]:
        while self.watch.step(CALENDAR, OPEN):
            pass
        return set(marked(path_of(self.data, "kis")))


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def reconnections(count: int) -> list[dict[str, Any]]:
    return [line_of("reconnection_event", {"result": "SUCCESS", "attempt_no": 1}, OPEN + number) for number in range(count)]


def test_evidence_adds_up_over_the_lines_as_they_come(files: Files) -> None:
    files.write(*reconnections(19))
    assert files.step() == set()
    assert files.step() == set(), "nothing is read twice"
    files.write(*reconnections(1))
    assert files.step() == {(DAY, "reconnects")}
    files.write(gap(0, 400))
    assert files.step() == {(DAY, "reconnects"), (DAY, "critical_gap")}
    assert len(changes(path_of(files.data, "kis"))) == 2
    files.watch = files.another()
    files.step()
    assert len(changes(path_of(files.data, "kis"))) == 2, "the next start comes to the same and says it once"


def test_half_a_line_waits_for_its_other_half(files: Files) -> None:
    files.write(*reconnections(19))
    path = files.folder / f"{DAY}.jsonl"
    whole = orjson.dumps(reconnections(1)[0]) + b"\n"
    path.write_bytes(path.read_bytes() + whole[:40])
    assert files.step() == set()
    path.write_bytes(path.read_bytes() + whole[40:])
    assert files.step() == {(DAY, "reconnects")}


def test_a_file_that_was_cut_is_read_anew(files: Files) -> None:
    files.write(*reconnections(15))
    files.step()
    path = files.folder / f"{DAY}.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:10])[:-3] + b"}\n")
    files.write(*reconnections(8))
    assert files.step() == set(), "18 at most are there now"
    files.write(*reconnections(3))
    assert files.step() == {(DAY, "reconnects")}


def test_a_gap_over_midnight_belongs_to_both_days(files: Files) -> None:
    always = replace(KIS, hours="always")
    files.watch = files.another(always)
    midnight_s = 15 * 3600  # of Seoul, after OPEN
    files.write(gap(midnight_s - 400, 1000), day=20260123)
    assert files.step() == {(DAY, "critical_gap"), (20260123, "critical_gap"), (20260123, "disconnected")}


def test_the_hours_decide(files: Files) -> None:
    files.write(gap(7 * 3600, 1000), gap(-3600, 3000))
    files.write(gap(24 * 3600, 1000), day=20260123)  # the calendar knows of no trading that day
    assert files.step() == set()
    files.write(gap(3600, 1000))
    assert files.step() == {(DAY, "critical_gap"), (DAY, "disconnected")}


def test_a_day_that_cannot_be_marked_now_is_marked_when_there_is_room_again(files: Files) -> None:
    files.step()
    (files.data / "system" / "days").write_bytes(b"")  # a file where the folder should be
    files.write(*reconnections(20))
    with pytest.raises(OSError, match="days"):
        files.watch.step(CALENDAR, OPEN)
    (files.data / "system" / "days").unlink()
    assert files.step() == {(DAY, "reconnects")}


def test_what_does_not_read_is_passed_over(files: Files) -> None:
    (files.folder / f"{DAY}.jsonl").write_bytes(b'{"event_type":"gap_marker",\n\xff\xfe\n[1]\n{"event_type":"gap_marker"}\n')
    files.write(*reconnections(20))
    assert files.step() == {(DAY, "reconnects")}


def test_old_days_are_forgotten(files: Files) -> None:
    for day in range(1, 20):
        files.write(line_of("counts", COUNTS | {"minute_ns": OPEN + day * 86_400 * NS}, OPEN), day=20260100 + day)
        files.step()
    assert len(files.watch._evidence) <= 3


def test_the_hosts_minutes() -> None:
    watch = HostWatch()
    figures = HostFigures(cpu_s=0, idle_s=0, disk_bytes=100, disk_free_bytes=60)
    assert not watch.look(OPEN + 30 * NS, figures)
    ends = []
    for second in range(32, 300, 2):
        figures = replace(figures, cpu_s=second * 1.8, idle_s=second * 0.2, disk_free_bytes=10 if second == 130 else 60)
        ends += [second] if watch.look(OPEN + second * NS, figures) else []
    assert ends == [122, 182, 242], "the first was not seen whole"
    assert [(one.minute_ns, round(one.cpu, 6), one.disk) for one in watch.minutes] == [
        (OPEN + MINUTE_NS, 0.9, 0.4), (OPEN + 2 * MINUTE_NS, 0.9, 0.9), (OPEN + 3 * MINUTE_NS, 0.9, 0.4),
    ]  # fmt: skip
    assert not watch.look(OPEN + 3600 * NS, figures), "the clock stepped, or the machine stood still"


def test_a_busy_host_marks_the_day_of_each_provider(files: Files) -> None:
    files.watch.step(CALENDAR, OPEN)
    files.watch.host(busy(*[0.9] * 10), CALENDAR, OPEN)
    files.watch.host(busy(*[0.9] * 11, disk=0.95), CALENDAR, OPEN)
    assert set(marked(path_of(files.data, "kis"))) == {(DAY, "cpu"), (DAY, "disk")}
