"""What system/events says of today, counted: each kind of line, files that grow, are cut, and end with their day."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from obs.config.options import SupervisorOptions
from obs.monitor.gaps import SEVERITIES
from obs.monitor.health import Reason, Verdict, judge
from obs.monitor.host import HostFigures, ProcessFigures
from obs.monitor.metrics import render
from obs.monitor.tallies import DECISIONS, OTHER, SLOT_STEPS, WARNINGS, Tallies, Tally, count
from obs.monitor.view import HostView, ProviderView, RoleView
from obs.record.events import GAP_REASONS, event_line, gap_payload, make_event, severity_of
from obs.select.overflow import DECISION_REASONS
from obs.shm import ROLE_CELL

NS = 10**9
ROOT = Path(__file__).resolve().parents[2]


def line(kind: str, payload: dict[str, Any], symbol: str = "", start_s: int = 0, end_s: int = 0) -> bytes:
    """One line as the archive writer makes it of an event."""
    row = make_event(kind, 1000 * NS, payload, symbol=symbol, start_ns=start_s * NS, end_ns=end_s * NS)
    return event_line(row, "sess_20260122_000000_kis_0001", "kis", "event")


def gap(reason: str, seconds: float, scope: str = "scalp", **more: Any) -> bytes:
    payload = gap_payload(
        start_ns=0, end_ns=int(seconds * NS), scope=scope, reason=reason, session_id="sess_20260122_000000_kis_0001", provider="kis", **more
    )
    return line("gap_marker", payload)


def tally_of(*lines: bytes) -> Tally:
    tally = Tally()
    for one in lines:
        count(tally, one)
    return tally


def test_gaps_by_reason_and_severity() -> None:
    tally = tally_of(gap("mute", 5), gap("mute", 90.25), gap("restart", 400), gap("venue_count", 3, inside="s/event/1"))
    assert tally.gaps == {("mute", "brief"): 1, ("mute", "major"): 1, ("restart", "critical"): 1, ("venue_count", "brief"): 1}
    assert tally.gap_milliseconds == {"mute": 95_250, "restart": 400_000}, "one inside another is time that was counted"


def test_a_sweep_and_what_it_brought() -> None:
    report = {"what": "sweep", "expected": 2500, "received": 2490, "candles": 900, "quotes_s": 120.5, "seconds": 310.0}
    tally = tally_of(line("lifecycle", report, end_s=600), line("lifecycle", report | {"received": 2500}, end_s=1200))
    assert tally.symbols == {"quoted": 4990, "failed": 10, "candle": 1800}
    assert tally.sweep is not None
    assert (tally.sweep.end_s, tally.sweep.received, tally.sweep.seconds) == (1200.0, 2500, 310.0)


def test_slots_losers_reconnections_warnings_marks() -> None:
    tally = tally_of(
        line("slot", {"what": "swap"}, "005930"), line("slot", {"what": "something new"}),
        line("overflow", {"candidate_score": 0.5, "decision_reason": "slot_full"}, "000660"), line("overflow", {"candidate_score": 0.5}),
        line("reconnection_event", {"result": "FAIL"}), line("reconnection_event", {"result": "SUCCESS"}),
        line("warning", {"what": "clock_step"}), line("warning", {"what": "pin ABC"}),
        line("lifecycle", {"what": "anomaly_day", "change": "marked", "reason": "gaps"}),
        line("lifecycle", {"what": "anomaly_day", "change": "unmarked", "reason": "manual"}), line("mitigation", {"level_after": 1}),
    )  # fmt: skip
    assert tally.slot_steps == {"swap": 1, OTHER: 1}
    assert tally.overflow == {"slot_full": 1, OTHER: 1}
    assert tally.reconnections == {"fail": 1, "success": 1}
    assert tally.warnings == {"clock_step": 1, OTHER: 1}
    assert (tally.marks, tally.mitigations, tally.bad_lines) == ({"gaps": 1}, 1, 0)


def test_coverage_is_that_of_the_last_minute() -> None:
    minute = {"minute_ns": 60 * NS, "slots": 40, "covered_s": 2400.0}
    assert tally_of(line("counts", minute), line("counts", minute | {"covered_s": 1800.0})).coverage == 0.75
    assert tally_of(line("counts", minute), line("counts", {"minute_ns": 60 * NS}, "005930")).coverage == 1.0
    assert tally_of(line("counts", minute | {"slots": 0, "covered_s": 0.0})).coverage is None
    assert Tally().coverage is None


@pytest.mark.parametrize(
    "bad",
    [b"", b"{", b"[]", b'{"event_type":"gap_marker"}', b'{"event_type":"slot"}', b'{"event_type":"counts","covered_s":"x"}', b"\xff\xfe"],
)
def test_a_line_that_does_not_read_is_counted_and_passed_over(bad: bytes) -> None:
    tally = tally_of(gap("mute", 5), bad, gap("mute", 5))
    assert (sum(tally.gaps.values()), tally.bad_lines) == (2, 1)


def test_lists_are_those_of_the_program() -> None:
    """Labels are closed lists: what the program says and these do not know would be lost among the others."""
    assert DECISIONS == DECISION_REASONS
    assert {severity_of(seconds) for seconds in (1, 30, 200, 400)} == set(SEVERITIES)
    texts = "\n".join(path.read_text() for path in (ROOT / "obs" / "roles").glob("*.py"))
    said = set(re.findall(r'"warning",[^{\n]*\{"what": "(\w+)"', texts)) | set(re.findall(r'_warn\("(\w+)"', texts))
    said |= set(re.findall(r'facts = \{"what": "(slot_refused)"', texts))
    assert said == set(WARNINGS)
    steps = re.search(r'"what": "([a-z|]+)", "score"', texts)
    assert steps is not None
    assert set(steps[1].split("|")) == set(SLOT_STEPS)


# --- files


def write(folder: Path, day: str, *lines: bytes, end: bytes = b"") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{day}.jsonl"
    with path.open("ab") as file:
        file.write(b"".join(one + b"\n" for one in lines) + end)
    return path


def gaps_of(tallies: Tallies) -> int | None:
    tallies.look(["kis"])
    tally = tallies.of("kis")
    return None if tally is None else sum(tally.gaps.values())


def test_a_file_that_grows_and_a_day_that_ends(tmp_path: Path) -> None:
    folder, tallies = tmp_path / "system" / "events" / "kis", Tallies(tmp_path)
    assert tallies.of("kis") is None
    assert gaps_of(tallies) == 0, "nothing was told yet: zero is the truth"
    whole = gap("mute", 5)
    write(folder, "20260122", whole, whole, end=whole[:40])
    assert gaps_of(tallies) == 2
    write(folder, "20260122", whole[40:])
    assert gaps_of(tallies) == 3, "a line counts once it is whole"
    write(folder, "20260123", whole)
    assert gaps_of(tallies) == 1, "a new day begins at zero"
    write(folder, "20260122", whole)
    assert gaps_of(tallies) == 1, "what comes late to the day before is no matter of today"


def test_whoever_begins_again_comes_to_the_same_figures(tmp_path: Path) -> None:
    """So a monitor that starts again is no reset for Prometheus, and what happened meanwhile is an increase."""
    folder, first = tmp_path / "system" / "events" / "kis", Tallies(tmp_path)
    write(folder, "20260122", *[gap("mute", 5)] * 7)
    assert gaps_of(first) == 7
    write(folder, "20260122", gap("mute", 5))
    assert gaps_of(Tallies(tmp_path)) == gaps_of(first) == 8


def test_a_file_that_recovery_has_cut_is_counted_anew(tmp_path: Path) -> None:
    folder, tallies = tmp_path / "system" / "events" / "kis", Tallies(tmp_path)
    path = write(folder, "20260122", *[gap("mute", 5)] * 3)
    assert gaps_of(tallies) == 3
    path.write_bytes(path.read_bytes()[: -len(gap("mute", 5)) - 1] + gap("mute", 5000) + b"\n")
    assert gaps_of(tallies) == 3
    path.write_bytes(b"")
    assert gaps_of(tallies) == 0


def test_a_long_file_shows_nothing_before_it_has_been_read_to_its_end(tmp_path: Path) -> None:
    """Half of a count would look like a restart, and its rest like thousands of gaps at once."""
    folder, tallies = tmp_path / "system" / "events" / "kis", Tallies(tmp_path)
    loser = line("overflow", {"candidate_score": 0.5, "decision_reason": "low_score"}, "000660")
    write(folder, "20260122", *[loser] * 45_000)
    assert gaps_of(tallies) is None
    assert gaps_of(tallies) is None
    assert gaps_of(tallies) == 0
    tally = tallies.of("kis")
    assert tally is not None
    assert tally.overflow == {"low_score": 45_000}


# --- as metrics


def provider(**more: Any) -> ProviderView:
    counters = dict.fromkeys((name for name in ROLE_CELL.names or () if name != "pid"), 0)
    feed = RoleView("feed", "kis", 1, True, True, 0.1, "", 0.0, counters, ProcessFigures())
    link = {"name": "KIS", "connected": True, "pid": 1, "connection_no": 1}
    made = ProviderView("kis", "kr_stocks", "krx", "sample", True, True, True, True, 41, roles={"feed": feed}, links=[link])
    return replace(made, **more)


def samples(view: HostView, verdict: Verdict, tallies: Tallies | None = None) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = render(view, verdict, tallies)[0].decode()
    return {
        (one.name, tuple(sorted(one.labels.items()))): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


def test_what_an_ordered_start_or_stop_explains_is_no_alarm() -> None:
    view = HostView(0, [provider()], {}, {}, HostFigures(disk_bytes=1))
    reasons = (Reason("not_connected", "kis", "stopping", expected=True), Reason("disk", "", "full"))
    shown = samples(view, Verdict(reasons))
    assert shown["obs_health_reason", (("reason", "not_connected"),)] == 1
    assert shown["obs_health_alarm", (("provider", "kis"), ("reason", "not_connected"))] == 0
    assert shown["obs_health_alarm", (("provider", "host"), ("reason", "disk"))] == 1
    assert shown["obs_health_alarm", (("provider", "kis"), ("reason", "disk"))] == 0


def test_a_feed_that_has_died_has_no_connection() -> None:
    living = provider()
    dead = provider(roles={"feed": replace(living.roles["feed"], alive=False)})
    for one, connected in ((living, 1), (dead, 0)):
        view = HostView(0, [one], {}, {}, HostFigures())
        assert samples(view, judge(view, SupervisorOptions()))["obs_connected", (("link", "KIS"), ("provider", "kis"))] == connected


def test_the_coverage_of_an_old_minute_says_nothing_of_now(tmp_path: Path) -> None:
    tallies = Tallies(tmp_path)
    write(tmp_path / "system" / "events" / "kis", "20260122", line("counts", {"minute_ns": 600 * NS, "slots": 40, "covered_s": 1800.0}))
    tallies.look(["kis"])
    for now_s, shown in ((661, 0.75), (780, 0.75), (781, None)):
        view = HostView(now_s * NS, [provider()], {}, {}, HostFigures())
        assert samples(view, Verdict(()), tallies).get(("obs_coverage_ratio", (("provider", "kis"),))) == shown


def test_every_gap_reason_is_shown_before_it_comes(tmp_path: Path) -> None:
    """A counter that appears with its first count has not increased."""
    tallies = Tallies(tmp_path)
    tallies.look(["kis"])
    view = HostView(0, [provider()], {}, {}, HostFigures())
    shown = samples(view, Verdict(()), tallies)
    for reason in GAP_REASONS:
        assert shown["obs_gap_seconds_total", (("provider", "kis"), ("reason", reason))] == 0
        assert shown["obs_gap_markers_total", (("provider", "kis"), ("reason", reason), ("severity", "major"))] == 0
    write(tmp_path / "system" / "events" / "kis", "20260122", gap("mute", 90.25), gap("mute", 2))
    tallies.look(["kis"])
    shown = samples(view, Verdict(()), tallies)
    assert shown["obs_gap_seconds_total", (("provider", "kis"), ("reason", "mute"))] == 92.25
    assert not any(np.isnan(value) for value in shown.values())
    assert orjson.loads(gap("mute", 90.25))["severity"] == "major"
