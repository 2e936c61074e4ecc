"""The dashboard's estimate of the server's clock, in the Node that Playwright brings: how old a record is when it is shown."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import orjson
from playwright._impl._driver import compute_driver_executable

import obs.monitor

ASSETS = Path(obs.monitor.__file__).parent / "web" / "assets"
# Both clocks by hand: `own` is what the browser counts, `server` what the server's clock says; each second brings a time of the
# server that is `late` ms old, and a record of `lag` ms is shown.
SCRIPT = """
let own = 1000;
const clock = new ServerClock(() => own);
const shown = [];
for (const { ahead, late, lag, seconds } of given) {
  for (let second = 0; second < seconds; second += 1) {
    own += 1000;
    clock.heard(own + ahead - late[second % late.length]);
    shown.push(clock.ageMs(own + ahead - lag));
  }
}
const before = clock.nowMs();
clock.heard(NaN);
console.log(JSON.stringify({ shown, same: before === clock.nowMs(), future: clock.ageMs(clock.nowMs() + 23), fresh: fresh(Date.now()) }));
function fresh(ms) { return Math.abs(new ServerClock().nowMs() - ms); }
"""


def shown(*given: dict[str, Any]) -> dict[str, Any]:
    driver = compute_driver_executable()
    node = driver[0] if isinstance(driver, tuple) else str(Path(driver).parent / "node")
    text = (ASSETS / "server_clock.js").read_text() + f"const given = {orjson.dumps(given).decode()};\n" + SCRIPT
    done = subprocess.run([node, "--input-type=module", "-"], input=text, capture_output=True, text=True, timeout=120, check=True)
    value: dict[str, Any] = orjson.loads(done.stdout)
    return value


HOUR = 3_600_000


def test_the_difference_of_the_clocks_is_not_shown_as_an_age() -> None:
    """One clock is an hour before or behind the other; what the server says of its time comes late, now more and now less."""
    for ahead in (HOUR, -HOUR, 23, -23, 0):
        told = shown({"ahead": ahead, "late": [900, 12, 400, 700], "lag": 250, "seconds": 60})
        assert told["shown"][0] == 0.0, "the first time that came was 900 ms old"
        assert all(230 <= age <= 250 for age in told["shown"][1:]), told["shown"]


def test_an_age_is_never_negative() -> None:
    told = shown({"ahead": 5000, "late": [800], "lag": 30, "seconds": 5})
    assert (told["shown"], told["future"]) == ([0.0] * 5, 0.0)
    assert told["same"], "a time that does not read changes nothing"
    assert told["fresh"] < 1000, "before anything was heard it is the browser's own"


def test_a_clock_that_is_set_is_followed() -> None:
    forward, back = {"ahead": HOUR, "late": [10], "lag": 100, "seconds": 5}, {"ahead": 0, "late": [10], "lag": 100, "seconds": 40}
    ages = shown({**back, "seconds": 5}, forward, back)["shown"]
    assert all(85 <= age <= 90 for age in ages[:10]), "a time that is ahead of ours is believed at once"
    assert 85 <= ages[-1] <= 90, "one that is behind, once it cannot be lateness"


def test_clocks_that_part_slowly_are_followed() -> None:
    """Ours gains a twentieth of a millisecond each second: after two hours that would be 360 ms."""
    drift = [{"ahead": -second * 5, "late": [10], "lag": 100, "seconds": 100} for second in range(72)]
    assert 80 <= shown(*drift)["shown"][-1] <= 100
