"""`obs top` on a real terminal (tmux), over a real process tree: what it shows, its keys, its size, and the terminal afterwards."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from supervised import Supervised
from terminals import PROMPT, ROOT, Tmux, command, environ, tmux, until

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux: ops/test-deps installs it")


@pytest.fixture
def screen() -> Iterator[Tmux]:
    with tmux() as one:
        yield one


def modes(screen: Tmux, name: str) -> str:
    """Return the modes of the terminal, as stty has them, summed so that they stand on one line."""
    screen.keys("-l", f"echo {name}=$(stty -g | cksum)")
    screen.keys("Enter")
    found = until("the modes", lambda: re.search(rf"^{name}=(\d+) \d+$", screen.screen(), re.MULTILINE))
    return str(found[1])


@pytest.fixture
def nothing(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.fixture
def tree(tmp_path: Path, pg_dsn: str) -> Iterator[Supervised]:
    one = Supervised(tmp_path, pg_dsn)
    one.start().ready()
    one.recording("kis", "upbit")
    yield one
    one.close()


def restored(screen: Tmux, code: int, before: str) -> None:
    """The shell is back, on the ordinary screen, with the cursor and the modes that it had."""
    until("the ordinary screen", lambda: screen.state()["alternate_on"] == "0")
    screen.shows(f"code={code}\n")
    assert screen.state()["cursor_flag"] == "1"
    assert not [line for line in screen.lines() if "q quit" in line or "MiB" in line]  # nothing of ours is left behind
    assert modes(screen, "after") == before


def started(screen: Tmux, *words: str | Path, see: str = "DOWN") -> None:
    screen.keys("-l", f"{shlex.join(words if len(words) > 2 else command('top', '--data', *words))}; echo code=$?")
    screen.keys("Enter")
    until("the alternate screen", lambda: screen.state()["alternate_on"] == "1")
    screen.shows(see)


def test_it_shows_a_running_tree_and_obeys_its_keys(tree: Supervised, screen: Tmux) -> None:
    without_a_terminal(tree)
    before = modes(screen, "before")
    words = command("top", "--config", tree.config, "--data", tree.data)
    started(screen, *words, see="slots of kis")
    screen.shows("GREEN")
    text = screen.shows(" 3/3 ")
    assert len(text.splitlines()) == 24
    for word in ("005930", "000660", "Q500001", "● feed", "● monitor", "tick", "q quit"):
        assert word in text
    assert screen.state()["cursor_flag"] == "0"

    screen.keys("²")  # a digit of no provider, and no number
    screen.keys("2")
    assert "KRW-BTC" in screen.shows("slots of upbit")
    screen.keys("Left")
    screen.shows("slots of kis")
    screen.keys("Right")
    screen.shows("slots of upbit")

    def clock() -> str:
        return screen.lines()[0].split()[-2]

    now = clock()
    until("a later frame", lambda: clock() != now)
    screen.keys("p")
    screen.shows("PAUSED")
    now = clock()
    records = tree.published("upbit")
    until("two seconds' records", lambda: tree.published("upbit") > records + 10)
    assert clock() == now
    screen.keys("1")
    screen.shows("slots of kis")  # another provider can be looked at meanwhile
    assert clock() == now
    screen.keys("p")
    until("a later frame", lambda: clock() != now)
    assert "PAUSED" not in screen.screen()

    screen.resize(140, 40)
    until("the larger frame", lambda: len(screen.lines()) == 40 and len(screen.lines()[0].rstrip()) > 135)
    assert screen.lines()[-1].startswith(" q quit")
    assert "since its record, last " in screen.screen()
    screen.resize(60, 12)
    until("the smaller frame", lambda: len(screen.lines()) == 12 and screen.lines()[-1].startswith(" q quit"))
    screen.resize(100, 36)
    until("a larger frame", lambda: len(screen.lines()) == 36 and screen.lines()[-1].startswith(" q quit"))

    tree.venues["upbit"][0].kill()
    assert "do: " in screen.shows("upbit not_connected: ")
    assert screen.lines()[0].startswith(" obs  RED")
    screen.resize(80, 24)  # the reason and what to do are longer than a line
    whole = r"upbit not_connected: .*\(for \d+ s\) do: .*RUNBOOK\.md#not_connected\)"
    until("all of it", lambda: re.search(whole, " ".join(screen.screen().split())))
    words = command("status", "--config", tree.config, "--data", tree.data)
    until("since when, of the monitor", lambda: re.match(r"RED  upbit not_connected: .* \(for \d+ s\).*\. Do: ", output(words)))
    screen.keys("q")
    restored(screen, 0, before)

    words = command("slots", "--config", tree.config, "--data", tree.data)
    assert "3 of 3 slots, 3 confirmed" in output(words)
    tree.starts[0].stop()
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, env=environ(), cwd=ROOT, check=False)
    assert done.returncode == 4
    first = done.stdout.splitlines()[0]
    assert re.match(r"kis \(kr_stocks\): stopped since [-0-9]+ [:0-9]+ UTC; these are the 3 slots of its last life", first), first
    assert "confirmed" not in done.stdout


def output(words: list[str]) -> str:
    return subprocess.run(words, capture_output=True, text=True, timeout=60, env=environ(), cwd=ROOT, check=False).stdout


def without_a_terminal(tree: Supervised) -> None:
    """It prints one frame."""
    done = subprocess.run(
        command("top", "--config", tree.config, "--data", tree.data, "--provider", "upbit"), capture_output=True, text=True, timeout=60,
        env=environ(), cwd=ROOT, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(" obs  GREEN  kis records 3 symbols; upbit records 3 symbols")
    assert "\x1b" not in done.stdout
    assert re.search(r"^2 +upbit +open +1/1 +3/3 +[0-9.]+ ", done.stdout, re.MULTILINE), done.stdout  # with rates
    assert "slots of upbit" in done.stdout
    assert "q quit" not in done.stdout
    done = subprocess.run(
        command("top", "--json", "--config", tree.config, "--data", tree.data), capture_output=True, timeout=60, env=environ(), cwd=ROOT,
        check=False,
    )  # fmt: skip
    value = json.loads(done.stdout)
    assert value["status"]["health"]["ok"] is True
    assert {one["symbol"] for one in value["slots"][1]["slots"]} == {"KRW-BTC", "KRW-ETH", "KRW-XRP"}


def test_nothing_runs_here(nothing: Path) -> None:
    words = command("top", "--data", nothing)
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, env=environ(), cwd=ROOT, check=False)
    assert (done.returncode, done.stderr) == (4, "")
    assert done.stdout.startswith(" obs  DOWN")


@pytest.mark.parametrize(("how", "code"), [("q", 0), ("C-c", 0), ("SIGTERM", 143), ("C-\\", 131), ("SIGHUP of a dead shell", -1)])
def test_the_terminal_is_given_back(how: str, code: int, screen: Tmux, nothing: Path) -> None:
    before = modes(screen, "before")
    started(screen, nothing)
    child = screen.child()
    if how == "SIGTERM":
        os.kill(child, signal.SIGTERM)
    elif code >= 0:
        screen.keys(how)
    else:
        os.kill(int(screen.state()["pane_pid"]), signal.SIGKILL)  # its terminal goes: it must not stay behind
        until("its end", lambda: not Path(f"/proc/{child}").exists())
        return
    restored(screen, code, before)


def test_the_terminal_is_given_back_after_an_error(screen: Tmux, nothing: Path) -> None:
    """An error that nobody foresaw, in the middle of the second look."""
    program = (
        "import sys; from obs.cli.looking import Looker; from obs.cli.main import main; true = Looker.look; seen = []\n"
        "def look(self):\n    seen.append(1)\n    if len(seen) > 1: raise RuntimeError('unforeseen')\n    return true(self)\n"
        "Looker.look = look\nsys.exit(main(sys.argv[1:]))"
    )
    screen.keys("-l", f"{shlex.join([sys.executable, '-c', program, 'top', '--data', str(nothing)])}; echo code=$?")
    screen.keys("Enter")
    assert "RuntimeError: unforeseen" in screen.shows("code=1\n")
    assert screen.state() | {"alternate_on": "0", "cursor_flag": "1"} == screen.state()


def test_ctrl_z_gives_the_terminal_back_until_it_goes_on(screen: Tmux, nothing: Path) -> None:
    started(screen, nothing)
    screen.keys("C-z")
    until("the ordinary screen", lambda: screen.state()["alternate_on"] == "0")
    screen.shows(PROMPT.strip())
    screen.run("echo", "in", "between")
    screen.shows("\nin between")
    screen.run("fg")
    until("the alternate screen", lambda: screen.state()["alternate_on"] == "1")
    screen.shows("DOWN")
    screen.keys("q")
    until("the ordinary screen", lambda: screen.state()["alternate_on"] == "0")
    screen.shows("in between")
