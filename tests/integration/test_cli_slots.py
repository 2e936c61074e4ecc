"""`obs slots` and `obs universe` as their users run them, over a board that a selection has written."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from obs.clock import NS
from obs.config import load
from obs.config.process import lock_path
from obs.market.universe import Universe, save
from obs.providers.base import ProviderOptions
from obs.providers.registry import make_provider
from obs.record.instruments import Instrument
from obs.record.schema import EVENT
from obs.ring import Producer, create_ring, fence
from obs.roles.selection import Selection
from obs.segment.sessions import SessionStart, append_end, append_start
from obs.shm import Board, Counters

ROOT = Path(__file__).parents[2]
DAY = 20260714
NOW = 1_784_000_040 * NS  # 12:34 KST of that day
NAMES = {"005930": "삼성전자", "000660": "SK하이닉스", "035420": "NAVER", "0193T0": "씨엠티엑스"}
TOML = """\
data_dir = "data"
[ring]
dir = "{shm}"
[providers.kis]
slots = 3
[providers.upbit]
symbols = ["KRW-BTC"]
[providers.thai]
type = "upbit"
enabled = false
venue = "th"
"""


class Clock:
    def wall_ns(self) -> int:
        return NOW

    def mono_ns(self) -> int:
        return NOW


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "shm").mkdir()
    (tmp_path / "data" / "state").mkdir(parents=True)
    (tmp_path / "obs.toml").write_text(TOML.format(shm=tmp_path / "shm"))
    return tmp_path


def listed(day: int = DAY, stale_since: int | None = None) -> Universe:
    instruments = tuple(Instrument(symbol, name, 50_000.0, (9 - place) * 1e11) for place, (symbol, name) in enumerate(NAMES.items()))
    return Universe("kr_stocks", day, "kis", NOW, instruments, 2748, {"halted": 41, "price": 310}, stale_since)


@pytest.fixture
def desk(place: Path) -> Iterator[Selection]:
    """The selection of kis in the shared memory that the commands look at; two slots are confirmed, one is refused."""
    universe = listed()
    save(universe, place / "data")
    config = load(place / "obs.toml", environ={}, cwd=place).provider("kis")
    assert config is not None
    provider = make_provider(
        "kis", ProviderOptions("kis", config.market, config.venue, config.channels, 3, "http://127.0.0.1:1", "ws://127.0.0.1:1")
    )
    board = Board.create(Board.path(place / "shm", (place / "data").resolve(), "kis"), fence)
    ring = create_ring(place / "shm" / "events", EVENT, 256, "sess_20260714_000000_kis_a1b2", "poll_event", 0)
    from obs.log import Log

    selection = Selection(provider, config, board, Producer(ring), place / "data", universe, Clock(), Log("poll", "kis"))
    selection.evaluate(NOW)
    slots = {"005930": "confirmed", "000660": "confirmed", "035420": "refused", "066570": "confirmed"}
    board["actual"].write_json({"slots": slots, "capacity": 3, "version": 1, "ns": NOW})
    board["level"].write_json({"level": 1, "ns": NOW})
    yield selection
    ring.close()
    board.close()


def obs(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OBS_", "KIS_"))}
    command = [sys.executable, "-W", "error", "-m", "obs.cli", *words]
    return subprocess.run(command, capture_output=True, timeout=60, env=kept | {"PYTHONPATH": str(ROOT)}, cwd=place, check=False, text=True)


def runs(place: Path, provider: str) -> None:
    """A supervisor of this provider lives: this process."""
    path = lock_path(place / "data", provider)
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"{os.getpid()}\n")


def answer(place: Path, *words: str) -> dict[str, Any]:
    done = obs(place, *words, "--json")
    assert done.returncode == 0, done.stderr
    value: dict[str, Any] = json.loads(done.stdout)
    return value


def test_slots_as_a_person_and_a_program_read_them(place: Path, desk: Selection) -> None:
    runs(place, "kis")
    done = obs(place, "slots")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "kis (kr_stocks): 3 of 3 slots, 2 confirmed, mitigation level 1"
    assert lines[1].split() == ["slot", "symbol", "name", "since", "(UTC)", "held", "how", "score", "trigger", "standing"]
    assert lines[2].split()[:5] == ["1", "005930", "삼성전자", "2026-07-14", "03:34:00"]
    assert lines[4].split()[-4:] == ["bootstrap", "0.000", "-", "refused"]
    assert lines[5:] == ["leaving: 066570"]

    value = answer(place, "slots", "--provider", "kis")
    assert [row["symbol"] for row in value["slots"]] == ["005930", "000660", "035420"]
    assert value["slots"][0] == {
        "slot": 1, "symbol": "005930", "name": "삼성전자", "since": "2026-07-14T03:34:00.000Z", "since_ns": NOW, "how": "bootstrap",
        "score": 0.0, "trigger": None, "standing": "confirmed",
    }  # fmt: skip
    assert (value["version"], value["obeyed"], value["day"], value["capacity"], value["level"]) == (1, 1, DAY, 3, 1)
    assert (value["running"], value["stopped_ns"]) == (True, None)


def test_slots_of_a_life_that_is_over_are_held_by_nobody(place: Path, desk: Selection) -> None:
    """The board outlives the processes, and the venue's word with it."""
    gone = subprocess.Popen(["true"])
    gone.wait(10)
    runs(place, "kis")
    lock_path(place / "data", "kis").write_text(f"{gone.pid}\n")

    def stopped(since: str, held: str) -> None:
        done = obs(place, "slots")
        assert (done.returncode, done.stderr) == (4, "")
        lines = done.stdout.splitlines()
        assert lines[0] == f"kis (kr_stocks): stopped{since}; these are the 3 slots of its last life, none is held now"
        assert lines[2].split()[:6] == ["1", "005930", "삼성전자", "2026-07-14", "03:34:00", held]
        assert [line.split()[-1] for line in lines[2:5]] == ["-", "-", "-"]
        assert "confirmed" not in done.stdout

    stopped("", "-")
    session = "sess_20260714_000000_kis_a1b2"
    append_start(place / "data", SessionStart(session, "kis", NOW, "host", "boot", "1", "hash", {"tick": 4096}))
    stopped("", "-")  # killed: nobody wrote when
    append_end(place / "data", "kis", session, NOW + 3661 * NS, {"tick": 7})
    stopped(" since 2026-07-14 04:35:01 UTC", "1:01:01")
    done = obs(place, "slots", "--json")
    value = json.loads(done.stdout)
    assert (done.returncode, value["running"], value["stopped_ns"]) == (4, False, NOW + 3661 * NS)
    assert {row["standing"] for row in value["slots"]} == {None}

    counters = Counters(Counters.path(place / "shm", (place / "data").resolve(), "kis"), make=True)
    counters.add("feed")
    assert obs(place, "slots").returncode == 4
    counters.cell("feed")["pid"] = os.getpid()  # its supervisor was killed, the feed goes on
    done = obs(place, "slots")
    assert done.returncode == 0
    assert "3 of 3 slots, 2 confirmed" in done.stdout
    counters.close()


def test_nothing_on_a_board_or_in_a_file_steers_the_terminal(place: Path, desk: Selection) -> None:
    runs(place, "upbit")
    evil = "\x1b[2J\u202e"
    board = Board.create(Board.path(place / "shm", (place / "data").resolve(), "upbit"), fence)
    board["wanted"].write_json({"symbols": [evil], "ns": 1, "why": {evil: (1, evil, None, evil)}})
    board["actual"].write_json({"slots": {evil: evil, "left" + evil: "confirmed"}})
    (place / "data" / "state" / "upbit.pins.json").write_text(json.dumps({"pinned": [evil], "excluded": []}))
    save(replace(listed(DAY + 1), source=evil, refused={evil: 1}), place / "data")
    for words, count in ((("slots", "--provider", "upbit"), 6), (("universe",), 2)):
        done = obs(place, *words)
        assert done.returncode == 0, done.stderr
        text = done.stdout + done.stderr
        assert not [line for line in text.split("\n") if not line.isprintable()]
        assert text.count(r"\x1b[2J\u202e") >= count, text
    value = answer(place, "slots", "--provider", "upbit")
    assert value["slots"][0]["symbol"] == evil  # a program gets it as it is
    board.close()


def test_what_nothing_is_known_of_is_could_not_check(place: Path, desk: Selection) -> None:
    for words in (("slots", "--provider", "upbit"), ("slots", "--provider", "nobody")):
        done = obs(place, *words)
        assert (done.returncode, done.stdout) == (4, "")
        assert "nothing is known of" in done.stderr


def test_listed_symbols_are_shown_without_a_reason(place: Path, desk: Selection) -> None:
    board = Board.create(Board.path(place / "shm", (place / "data").resolve(), "upbit"), fence)
    board["wanted"].write_json({"symbols": ["KRW-BTC"], "ns": 1})
    runs(place, "upbit")
    value = answer(place, "slots", "--provider", "upbit")
    assert value["slots"] == [
        {"slot": 1, "symbol": "KRW-BTC", "name": "", "since": None, "since_ns": None, "how": "listed", "score": None, "trigger": None,
         "standing": None}
    ]  # fmt: skip
    assert obs(place, "slots").stdout.splitlines()[-1].split() == ["1", "KRW-BTC", "-", "-", "listed", "-", "-", "-"]
    board.close()


def test_pin_and_exclude_and_back(place: Path, desk: Selection) -> None:
    steps: list[tuple[str, str, list[str], list[str]]] = [
        ("pin", "0193T0", ["0193T0"], []),
        ("pin", "0193T0", ["0193T0"], []),
        ("exclude", "000660", ["0193T0"], ["000660"]),
        ("pin", "000660", ["0193T0", "000660"], []),
        ("exclude", "0193T0", ["000660"], ["0193T0"]),
        ("unpin", "000660", [], ["0193T0"]),
        ("include", "0193T0", [], []),
    ]
    for action, symbol, pinned, excluded in steps:
        assert answer(place, "slots", action, symbol) == {"provider": "kis", "pinned": pinned, "excluded": excluded}
    path = place / "data" / "state" / "kis.pins.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert json.loads(path.read_text()) == {"pinned": [], "excluded": []}
    for action, list_name in (("unpin", "pinned"), ("include", "excluded")):
        for words, of in ((("--json",), ""), (("--provider", "kis"), " of kis")):
            done = obs(place, "slots", action, "111111", *words)
            assert (done.returncode, done.stdout, done.stderr) == (1, "", f"obs slots: 111111 is not {list_name}{of}\n")

    done = obs(place, "slots", "pin", "Q500001", "--provider", "kis")
    assert done.returncode == 0
    assert done.stdout == "kis: pinned Q500001; excluded none\n"
    assert f"Q500001 is not in the universe of {DAY}" in done.stderr
    assert "kis does not run here" in done.stderr
    desk.take_pins(desk.read_pins())
    desk.evaluate(NOW + NS)
    lines = obs(place, "slots").stdout.splitlines()
    assert [line for line in lines if "Q500001" in line and "allocate (pinned)" in line and "manual" in line] or [
        line for line in lines if "Q500001" in line and "swap (pinned)" in line and "manual" in line
    ]
    assert lines[-1] == "pinned: Q500001"


def test_what_is_no_longer_selected_can_be_taken_back(place: Path) -> None:
    """Of a provider that lists its symbols now, and of one that has no section any more; a symbol of two needs its name."""
    for name in ("upbit", "gone", "kis"):
        (place / "data" / "state" / f"{name}.pins.json").write_text('{"pinned":["KRW-ETH"],"excluded":["KRW-XRP"]}')
    done = obs(place, "slots", "unpin", "KRW-ETH")
    assert (done.returncode, done.stdout) == (2, "")
    assert "KRW-ETH is pinned of gone, kis, upbit: name one with --provider" in done.stderr
    for name in ("upbit", "gone"):
        for action, pinned, excluded in (("unpin", [], ["KRW-XRP"]), ("include", [], [])):
            symbol = "KRW-ETH" if action == "unpin" else "KRW-XRP"
            value = answer(place, "slots", action, symbol, "--provider", name)
            assert value == {"provider": name, "pinned": pinned, "excluded": excluded}
    assert answer(place, "slots", "unpin", "KRW-ETH") == {"provider": "kis", "pinned": [], "excluded": ["KRW-XRP"]}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("pin",), "obs slots: pin which SYMBOL?\n"),
        (("unpin", "005930", "--provider", "nobody"), "no section providers.nobody; there are: kis, upbit, thai"),
        (("pin", "nonsense"), "a KRX short code such as 005930"),
        (("pin", "KRW-ETH"), "a KRX short code such as 005930"),
        (("pin", "KRW-ETH", "--provider", "upbit"), "no provider selects its symbols"),
        (("pin", "005930", "--provider", "nobody"), "no section providers.nobody; there are: kis, upbit, thai"),
        (("dance", "005930"), "invalid choice"),
    ],
)
def test_wrong_usage_is_exit_2_and_changes_nothing(place: Path, words: tuple[str, ...], said: str) -> None:
    done = obs(place, "slots", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert not (place / "data" / "state" / "kis.pins.json").exists()


def test_a_symbol_of_two_providers_needs_its_name(place: Path) -> None:
    path = place / "obs.toml"
    path.write_text(path.read_text() + '[providers.second]\ntype = "kis"\ncredentials = ["SECOND"]\n')
    done = obs(place, "slots", "pin", "005930")
    assert done.returncode == 2
    assert "005930 may be of kis, second: name one with --provider" in done.stderr
    assert answer(place, "slots", "pin", "005930", "--provider", "second")["pinned"] == ["005930"]


def test_a_file_of_pins_that_does_not_read_is_not_written_over(place: Path) -> None:
    path = place / "data" / "state" / "kis.pins.json"
    path.write_text("{")
    done = obs(place, "slots", "pin", "005930")
    assert done.returncode == 2
    assert "does not read" in done.stderr
    assert path.read_text() == "{"


def test_universe_of_the_newest_and_of_a_named_day(place: Path) -> None:
    save(listed(), place / "data")
    save(listed(DAY + 1, stale_since=DAY), place / "data")
    done = obs(place, "universe", "--date", str(DAY))
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[:2] == [
        f"kr_stocks {DAY}: 4 of 2748 listed by kis, made 2026-07-14T03:34:00.000Z", "not taken: 310 price, 41 halted",
    ]  # fmt: skip
    assert lines[3].split() == ["1", "005930", "삼성전자", "50,000", "900,000,000,000"]
    assert len(lines) == 7

    done = obs(place, "universe", "--provider", "kis")
    assert done.returncode == 1
    assert f"STALE: this is the list of {DAY}" in done.stdout
    done = obs(place, "universe", "--json")
    document = json.loads(done.stdout)
    assert (done.returncode, document["day"], document["stale_since"], document["listed"]) == (1, DAY + 1, DAY, 2748)
    assert [one["symbol"] for one in document["symbols"]] == list(NAMES)


def test_no_universe_and_one_that_does_not_read(place: Path) -> None:
    for words in ((), ("--date", "20200101"), ("--provider", "upbit")):
        done = obs(place, "universe", *words)
        assert (done.returncode, done.stdout) == (4, "")
    done = obs(place, "universe", "--provider", "nobody")
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.endswith("there are: kis, thai, upbit\n")
    path = place / "data" / "universe" / "kr_stocks" / f"{DAY}.json"
    path.parent.mkdir(parents=True)
    path.write_text("<html>")
    done = obs(place, "universe")
    assert done.returncode == 1
    assert "does not read" in done.stderr
    assert done.stdout == ""


def test_help_shows_examples(place: Path) -> None:
    for name in ("slots", "universe"):
        assert f"obs {name}" in obs(place, name, "--help").stdout.split("examples:")[1]


def test_status_tells_the_next_open_and_the_level(place: Path, desk: Selection) -> None:
    done = obs(place, "status", "--json")
    (kis, _) = json.loads(done.stdout)["providers"]
    assert kis["mitigation_level"] == 1
    assert kis["open"] or kis["next_open"].endswith(":00.000Z")
