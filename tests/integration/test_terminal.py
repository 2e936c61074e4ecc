"""What the commands show on a real terminal, and that pipes and files get none of it: columns, colours, progress, exit codes."""

from __future__ import annotations

import ast
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
from segment_lines import NS, SESSION, START_NS, gap_of, put, writer_at
from terminals import ROOT, command, environ, terminal

from obs.cli.main import COMMANDS, EXITS, main
from obs.record.events import gap_line, gap_payload

ESCAPE = b"\x1b"
CSI = re.compile(rb"\x1b\[[0-9;?]*[a-zA-Z]")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Twelve segments of kis, a gap line in the last one."""
    folder = tmp_path / "data"
    folder.mkdir()
    writer = writer_at(folder, segment_s=60)
    for place in range(12):
        put(writer, place * 120, 120)
    writer.append_gap(gap_of(1440, 1444))
    put(writer, 1445, 4)
    writer.flush()
    return folder


def piped(*words: str | Path, **environment: str | None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command(*words), capture_output=True, timeout=60, env=environ(**environment), cwd=ROOT, check=False)


# --- tail


def test_tail_has_columns_on_a_terminal_and_lines_in_a_pipe(data: Path) -> None:
    raw = piped("tail", "--data", data, "-n", "6").stdout
    lines = raw.splitlines()
    assert len(lines) == 6
    assert {b"symbol" in line for line in lines} == {True}
    with terminal("tail", "--data", data, "-n", "6") as one:
        assert one.end()[0] == 0
        shown = CSI.sub(b"", one.screen).replace(b"\r", b"").decode().splitlines()
    assert re.fullmatch(r"time \(UTC\) +symbol +price +change +volume +bid / ask +quality", shown[0])
    records = [line for line in map(orjson.loads, lines) if "last_price" in line]
    assert len(shown) == 7
    assert sum(" GAP " in line for line in shown) == 1
    for line, record in zip([line for line in shown[1:] if " GAP " not in line], records, strict=True):
        price = f"{record['last_price']:,.10g}"
        assert line.split()[:3] == [record["ts"][11:-1], record["symbol"], price]
    with terminal("tail", "--json", "--data", data, "-n", "6") as one:
        assert one.end()[0] == 0
        assert one.screen.replace(b"\r", b"") == raw


def test_tail_follows_in_columns_until_ctrl_c(data: Path) -> None:
    with terminal("tail", "-f", "--symbol", "000013", "--data", data, "-n", "1") as one:
        one.sees(b"000013")
        writer = writer_at(data, "sess_20260122_010000_kis_ffff")
        put(writer, 13, 1, session="sess_20260122_010000_kis_ffff", start_ns=1_769_140_000_000_000_000)
        writer.flush()
        one.sees(b"03:46:47.000")
        one.process.send_signal(signal.SIGINT)
        assert one.end()[0] == 0
        shown = CSI.sub(b"", one.screen).splitlines()
    assert sum(b"000013" in line for line in shown) == 2
    assert sum(b"time (UTC)" in line for line in shown) == 1


def test_tail_shows_what_was_lost_before_the_rings(data: Path) -> None:
    """A lost connection is in system/events alone; who follows a symbol sees it all the same, and a pipe the segment's lines alone."""

    def gap(start_s: float, **place: Any) -> bytes:
        start_ns = START_NS + int(start_s * NS)
        facts = {"start_ns": start_ns, "end_ns": start_ns + 20 * NS, "reason": "ws_disconnect", **place}
        return gap_line(gap_payload(scope="scalp", session_id=SESSION, provider="kis", **facts), "event", 3) + b"\n"

    events = data / "system" / "events" / "kis" / "20260122.jsonl"
    events.parent.mkdir(parents=True)
    lines = [gap(10), gap(706), gap(707, symbol="000001"), gap(708, sink="archive", first_seq=1, last_seq=2, reason="ring_lap")]
    events.write_bytes(b"".join(lines) + b'{"event_type":"gap_ma')
    with terminal("tail", "-f", "--symbol", "000013", "--data", data, "-n", "1") as one:
        one.sees(b"ws_disconnect")
        with events.open("r+b") as file:
            file.truncate(len(b"".join(lines)))
            file.seek(0, os.SEEK_END)
            file.write(gap(730, symbol="000013", reason="venue_count", lost=17))
        one.sees(b"venue_count, kis 000013, 17 lost (minor)")
        one.process.send_signal(signal.SIGINT)
        assert one.end()[0] == 0
        shown = CSI.sub(b"", one.screen).decode().splitlines()
    assert len(shown) == 4
    assert shown[1].split()[:2] == ["00:12:04.500", "000013"]
    told = [line.split(": ")[1] for line in shown[2:]]
    assert told == ["ws_disconnect, kis all symbols (minor)", "venue_count, kis 000013, 17 lost (minor)"]
    raw = piped("tail", "--symbol", "000013", "--data", data, "-n", "1").stdout.splitlines()
    assert [orjson.loads(line)["seq"] for line in raw] == [1448]


def test_tail_fits_a_narrow_terminal(data: Path) -> None:
    with terminal("tail", "--data", data, "-n", "3", size=(44, 20)) as one:
        assert one.end()[0] == 0
        shown = CSI.sub(b"", one.screen).replace(b"\r", b"").decode().splitlines()
    assert [len(line) <= 44 for line in shown] == [True] * 4
    assert shown[0].split()[:4] == ["time", "(UTC)", "symbol", "price"]


# --- colours


@pytest.mark.parametrize(
    ("streams", "environment", "coloured"),
    [
        ("0 1 2", {}, True),
        ("0 1 2", {"NO_COLOR": "1"}, False),
        ("0 1 2", {"TERM": "dumb"}, False),
        ("0 2", {}, False),  # stdout is a pipe
    ],
    ids=["terminal", "NO_COLOR", "dumb", "pipe"],
)
@pytest.mark.parametrize("name", ["status", "verify"])
def test_colours_are_for_terminals(
    name: str, streams: str, environment: dict[str, str], coloured: bool, data: Path, tmp_path: Path
) -> None:
    path = tmp_path / "obs.toml"
    path.write_text(f'data_dir = "{data}"\n[http]\nport = 0\n[providers.upbit]\nsymbols = ["KRW-BTC"]\n')
    with terminal(name, "--config", path, streams=streams, **environment) as one:
        code, out, _ = one.end()
        written = out or one.screen
    assert code in (0, 1, 4)
    assert len(written.splitlines()) >= 1
    assert (re.search(rb"\x1b\[[0-9;]*[1-9]m", written) is not None) == coloured, written


# --- progress


@pytest.mark.parametrize("name", ["verify", "audit"])
def test_long_work_shows_how_far_it_is_on_the_terminal_alone(name: str, data: Path) -> None:
    with terminal(name, "--data", data, streams="0 2") as one:
        code, out, _ = one.end()
        screen = one.screen
    assert code in (0, 1)
    assert name.encode() in screen
    assert b"KiB" in screen or b"bytes" in screen
    assert b"\x1b[?25l" in screen
    assert screen.rstrip().endswith((b"\x1b[?25h", b"\x1b[2K"))  # the cursor is back, the bar has gone
    assert b"\x1b[?25h" in screen
    assert out
    assert ESCAPE not in out
    with terminal(name, "--data", data, streams="0 1") as one:
        _, _, err = one.end()
    assert ESCAPE not in err
    assert piped(name, "--data", data, "--json").stderr.find(ESCAPE) == -1


def test_cat_shows_its_progress_only_while_it_fills_a_file(data: Path, tmp_path: Path) -> None:
    text = shlex.join(command("cat", "--data", data))
    for target, shown in ((f"> {tmp_path / 'lines'}", True), ("| cat > /dev/null", False)):
        with terminal(shell=f"{text} {target}") as one:
            assert one.end()[0] == 0
            assert (b"cat" in one.screen) == shown
    assert (tmp_path / "lines").read_bytes() == piped("cat", "--data", data).stdout


def test_a_bar_that_is_interrupted_gives_the_cursor_back(data: Path) -> None:
    """The reader of a file that never ends: a FIFO."""
    os.mkfifo(data / "scalp" / "kis" / "kr_stocks" / "20260122" / "23_00_00.jsonl.zst")
    with terminal("verify", "--data", data) as one:
        one.sees(b"23_00_00")
        one.process.send_signal(signal.SIGTERM)
        assert one.end()[0] == 128 + signal.SIGTERM
        assert one.screen.rfind(b"\x1b[?25h") > one.screen.rfind(b"\x1b[?25l") >= 0


def test_migrate_tells_each_step(empty_dsn: str, tmp_path: Path) -> None:
    with terminal("migrate", "--data", tmp_path, OBS_DSN=empty_dsn) as one:
        assert one.end()[0] == 0
        screen = CSI.sub(b"", one.screen)
    assert re.search(rb"migrate .*(\d+)/\1", screen), screen
    assert b"nothing to apply" not in screen
    with terminal("migrate", "--data", tmp_path, OBS_DSN=empty_dsn) as one:
        assert one.end()[0] == 0
        assert b"\x1b[?25l" not in one.screen  # no work, no bar
        assert b"nothing to apply" in one.screen


# --- help and exit codes


@pytest.mark.parametrize("name", COMMANDS)
def test_each_help_has_examples_and_exit_codes(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([name, "--help"])
    text = capsys.readouterr().out
    body = text.split("examples:\n")[1]
    assert re.search(rf"^  .*\bobs {name}", body, re.MULTILINE), body
    assert "--json" in text
    codes = re.findall(r"^  (\d+) +\S", body.split("exit codes:\n")[1], re.MULTILINE)
    assert codes[0] == "0"
    assert "2" in codes
    assert set(map(int, codes)) <= set(EXITS)


def test_every_exit_code_is_explained_in_one_place(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    text = capsys.readouterr().out
    assert {int(code) for code in re.findall(r"^  (\d+) +\S", text.split("exit codes:\n")[1], re.MULTILINE)} == set(EXITS)


@pytest.mark.parametrize("module", ["obs.supervisor", "obs.sim"])
def test_the_other_programs_tell_theirs(module: str) -> None:
    words = [sys.executable, "-m", module, "--help"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, env=environ(), cwd=ROOT, check=False)
    assert done.returncode == 0
    assert "examples:" in done.stdout
    assert re.search(r"exit codes: 0 \w+", done.stdout)


@pytest.mark.parametrize("name", COMMANDS)
def test_exit_codes_of_a_command_are_those_it_returns(name: str) -> None:
    """EXITS of a module against the EXIT_ names that its code uses: one that is returned is documented."""
    tree = ast.parse((ROOT / "obs" / "cli" / f"{name}.py").read_text())
    documented = next(node for node in tree.body if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "EXITS").value
    assert isinstance(documented, ast.Dict)
    told = {ast.unparse(key) for key in documented.keys if key is not None}
    returned = {
        node.id for one in ast.walk(tree) if isinstance(one, ast.Return) for node in ast.walk(one)
        if isinstance(node, ast.Name) and node.id.startswith("EXIT_")
    }  # fmt: skip
    assert returned <= told


# --- what a command costs that needs nothing


@pytest.mark.parametrize(
    ("words", "without"),
    [
        (("--version",), {"rich", "shtab", "psycopg", "aiohttp", "exchange_calendars"}),
        (("dsn",), {"rich", "shtab", "aiohttp", "exchange_calendars", "pandas", "zstandard"}),
        (("completion", "words", "providers"), {"rich", "shtab", "numpy", "psycopg", "aiohttp", "exchange_calendars"}),
        (("status",), {"rich", "shtab", "psycopg", "aiohttp", "exchange_calendars", "pandas"}),
        (("verify",), {"rich", "shtab", "psycopg", "aiohttp", "exchange_calendars", "pandas"}),
        (("tail",), {"rich", "shtab", "psycopg", "aiohttp", "exchange_calendars", "pandas"}),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, tuple) else "",
)
def test_a_command_loads_what_it_needs(words: tuple[str, ...], without: set[str], data: Path) -> None:
    """Of packages that take tens of milliseconds to import, each."""
    code = (
        "import sys, runpy\nsys.argv = ['obs', *sys.argv[1:]]\n"
        "try:\n    runpy.run_module('obs.cli', run_name='__main__')\n"
        "except SystemExit:\n    pass\nprint('LOADED', *sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words, "--data", str(data)], capture_output=True, text=True, timeout=60, cwd=ROOT, check=False,
        env=environ(OBS_DSN="dbname=x"),
    )  # fmt: skip
    loaded = done.stderr.splitlines()[-1].split()
    assert loaded[0] == "LOADED"
    assert "obs.cli.main" in loaded
    assert set(loaded) & without == set()
