"""Scripts of faults: one JSON object per line, `{"at_s":12.5,"do":"drop",…}`; pure parsing, all problems told at once.

`at_s` counts from the ready line, or from the first subscription with `"from":"subscription"`; `"every_s"` repeats it.
`"conn"` (a number) and `"symbol"` narrow an action down to one connection or to the connections and messages of a symbol.
Empty lines and lines that start with # are skipped. The same objects can be sent at run time: POST /sim/do.

| do | parameters (defaults) | what happens |
|---|---|---|
| drop | | TCP reset |
| close | code (1000), reason, s (0) | close frame, then TCP end; 1006: TCP end without one |
| rst | | half a frame, then a reset |
| mute | s (10) | sends nothing, yet answers protocol pings; the market goes on |
| half_open | s (for ever) | reads and sends nothing more, TCP stays up |
| slow | s (10), delay_s (0.5) | everything arrives late, in order |
| late | s (1) or n, delay_s (1.0) | messages are held back and overtaken by newer ones |
| duplicate | s (1) or n | messages are sent twice |
| fragment | s (1) or n, parts (3) | messages leave in several ws_frames, a ping between them |
| malformed | variant (cut), n (1) | extra, unreadable messages; `nan`, `type` and `neighbour` spoil one input of a real one |
| poison | variant (cut), s (60) | a malformed message after each new subscription |
| burst | x (10), s (1) | the rate times x |
| quiet_symbol | symbol, s (60) | nothing happens in that symbol |
| skew | offset_s (-5), s (10) | event times are off |
| rate_limit | s (5) | REST answers "too fast" |
| refuse | s (5), status (503) | handshakes are refused |
| calm | | every fault that lasts is over, half_open apart |
| refuse_symbol | symbol, code (OPSP0007), s (60) | KIS: its registration is refused |
| expire_approval | | KIS: approval keys are forgotten |
| refuse_approval | s (10) | KIS: approval keys are unknown when they are used: OPSP0011 |
| expire_token | | KIS: tokens are expired |
| take_appkey | s (10) | KIS: another session holds every appkey: OPSP8996 |
| answer | with, path (all), for_s (60) | REST answers of a path that contains `path` are html, truncated, empty, error200 or zero |
| surge | symbol, factor (5), for_s (for ever) | with --universe, as all below: its trades are larger |
| speed | symbol, factor (5), for_s (for ever) | it trades more often, less each time |
| spike | symbol, factor (5), for_s (for ever) | its price is multiplied |
| halt | symbol, for_s (for ever) | it does not trade |
| vanish | symbol, for_s (for ever) | it does not trade, and REST does not know it |

What becomes of symbols (surge to vanish) begins and ends with whole minutes of venue time: the first at or after its time, and
never one that somebody has seen trades of. Of a script file, that is the minute of `at_s` after the venue's clock started.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from obs.errors import ConfigError
from obs.sim.malform import SPOILED

VARIANTS: Final = (
    "cut", "huge", "fields_more", "fields_less", "count", "count_text", "cp949", "nan", "type", "neighbour", "empty",
    "no_records", "unknown", "encrypted", "framing",
)  # fmt: skip

_NUMBER: Final = (int, float)
_COMMON: Final[dict[str, tuple[type, ...]]] = {
    "at_s": _NUMBER, "do": (str,), "from": (str,), "every_s": _NUMBER, "conn": (int,), "symbol": (str,),
}  # fmt: skip
_WINDOW: Final[dict[str, tuple[type, ...]]] = {"s": _NUMBER}
_COUNTED: Final[dict[str, tuple[type, ...]]] = {"s": _NUMBER, "n": (int,)}
_SCENARIO: Final[dict[str, tuple[type, ...]]] = {"factor": _NUMBER, "for_s": _NUMBER}
ACTIONS: Final[dict[str, dict[str, tuple[type, ...]]]] = {
    "drop": {},
    "close": {"code": (int,), "reason": (str,)},
    "rst": {},
    "mute": _WINDOW,
    "half_open": _WINDOW,
    "slow": {**_WINDOW, "delay_s": _NUMBER},
    "late": {**_COUNTED, "delay_s": _NUMBER},
    "duplicate": _COUNTED,
    "fragment": {**_COUNTED, "parts": (int,)},
    "malformed": {"variant": (str,), "n": (int,)},
    "poison": {**_WINDOW, "variant": (str,)},
    "burst": {**_WINDOW, "x": _NUMBER},
    "quiet_symbol": _WINDOW,
    "skew": {**_WINDOW, "offset_s": _NUMBER},
    "rate_limit": _WINDOW,
    "refuse": {**_WINDOW, "status": (int,)},
    "refuse_symbol": {**_WINDOW, "code": (str,)},
    "calm": {},
    "expire_approval": {},
    "refuse_approval": _WINDOW,
    "expire_token": {},
    "take_appkey": _WINDOW,
    "answer": {"with": (str,), "path": (str,), "for_s": _NUMBER},
    "surge": _SCENARIO,
    "speed": _SCENARIO,
    "spike": _SCENARIO,
    "halt": {"for_s": _NUMBER},
    "vanish": {"for_s": _NUMBER},
}
_SIGNED: Final = ("offset_s",)
_ABOVE_0: Final = ("every_s", "n", "parts", "x", "factor", "for_s")
_NEEDS_SYMBOL: Final = ("quiet_symbol", "refuse_symbol", "surge", "speed", "spike", "halt", "vanish")
ANSWERS: Final = ("html", "truncated", "empty", "error200", "zero")


@dataclass(frozen=True, slots=True)
class Action:
    """One line of a script, checked."""

    do: str
    at_s: float = 0.0
    from_subscription: bool = False
    every_s: float | None = None
    conn: int | None = None
    symbol: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def number(self, name: str, default: float) -> float:
        return float(self.parameters.get(name, default))

    def count(self) -> int | None:
        """Return how many messages are meant, None if a span of time is."""
        return int(self.parameters["n"]) if "n" in self.parameters else None


def problems_of(line: object) -> list[str]:
    """Return what is wrong with one script object; empty if nothing is."""
    if not isinstance(line, dict):
        return [f"{line!r}: allowed is a JSON object"]
    do = line.get("do")
    if not isinstance(do, str) or do not in ACTIONS:
        return [f"do = {do!r}: allowed are {', '.join(ACTIONS)}"]
    allowed = _COMMON | ACTIONS[do]
    found = []
    for key, value in line.items():
        if key not in allowed:
            found.append(f"{key} = {value!r}: {do} takes {', '.join(allowed)}")
        elif isinstance(value, bool) or not isinstance(value, allowed[key]):
            found.append(f"{key} = {value!r}: allowed is {' or '.join(kind.__name__ for kind in allowed[key])}")
        elif isinstance(value, _NUMBER) and ((value < 0 and key not in _SIGNED) or (value == 0 and key in _ABOVE_0)):
            found.append(f"{key} = {value!r}: allowed is a positive number")
    if line.get("from", "start") not in ("start", "subscription"):
        found.append(f"from = {line['from']!r}: allowed are start, subscription")
    if do in _NEEDS_SYMBOL and "symbol" not in line:
        found.append(f"symbol is missing: {do} needs one")
    if do == "answer" and line.get("with") not in ANSWERS:
        found.append(f"with = {line.get('with')!r}: allowed are {', '.join(ANSWERS)}")
    if "variant" in line and line["variant"] not in VARIANTS:
        found.append(f"variant = {line['variant']!r}: allowed are {', '.join(VARIANTS)}")
    elif do == "poison" and line.get("variant") in SPOILED:
        found.append(f"variant = {line['variant']!r}: poison sends whole messages; {', '.join(SPOILED)} spoil a real one")
    return found


def parse_action(line: object) -> Action:
    """Return the action of one script object. Raises ConfigError with every problem."""
    found = problems_of(line)
    if found or not isinstance(line, dict):
        raise ConfigError("bad script line", problems=found)
    return Action(
        do=line["do"],
        at_s=float(line.get("at_s", 0.0)),
        from_subscription=line.get("from") == "subscription",
        every_s=float(line["every_s"]) if "every_s" in line else None,
        conn=line.get("conn"),
        symbol=line.get("symbol"),
        parameters={key: value for key, value in line.items() if key not in _COMMON},
    )


def load_script(path: Path) -> list[Action]:
    """Return the actions of a script file by time. Raises ConfigError with every problem of every line."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("cannot read the script", problems=[f"{path}: {error}"]) from error
    actions: list[Action] = []
    found: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            actions.append(parse_action(json.loads(line)))
        except ValueError as error:
            found.append(f"{path}:{number}: not JSON: {error}")
        except ConfigError as error:
            found.extend(f"{path}:{number}: {problem}" for problem in error.problems)
    if found:
        raise ConfigError("the script is wrong", problems=found)
    return sorted(actions, key=lambda action: action.at_s)
