"""What the files of a data directory and the simulated exchange's own log say, read without the code that wrote them.

Segments are cut into zstd frames and lines here, by zstandard and orjson alone: a mistake in obs.segment's writer cannot hide in
its reader. Nothing is judged here but form (a frame that does not decode, a line that is no JSON); obs/sim/numbered.py is used
to have the number of a record back. Memory: a record is kept as a few integers in columns, so millions of them fit.
"""

from __future__ import annotations

import base64
import hashlib
from array import array
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import zstandard

from obs.sim.numbered import k_of_acc_volume, k_of_sequential_id, trade

MARKETS = {"kis": "kr_stocks", "kis_us": "us_stocks", "upbit": "crypto"}
GROUPS = {"kis": "krx", "kis_us": "us", "upbit": "crypto"}
CODES = {"kis_us": "DNAS"}  # what stands before a symbol in the venue's own code for it: all are of one exchange
RINGS = ("tick", "event", "swing", "poll_event", "quarantine")

Problems = list[str]


def lines_of(path: Path, problems: Problems) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of a text file; a missing last newline or a line that is no JSON is a problem."""
    if not path.exists():
        return
    data = path.read_bytes()
    if data and not data.endswith(b"\n"):
        problems.append(f"{path}: does not end with a newline")
    for number, line in enumerate(data.splitlines(), 1):
        try:
            yield orjson.loads(line)
        except orjson.JSONDecodeError as error:
            problems.append(f"{path}:{number}: {error}: {line[:80]!r}")


def segment_lines(path: Path, problems: Problems) -> Iterator[dict[str, Any]]:
    """Yield the lines of a segment, frame by frame; every byte must belong to a whole frame of whole lines."""
    data = path.read_bytes()
    while data:
        reader = zstandard.ZstdDecompressor().decompressobj()
        try:
            raw = reader.decompress(data)
        except zstandard.ZstdError as error:
            problems.append(f"{path}: {error}, {len(data)} bytes before its end")
            return
        if not reader.eof or not raw.endswith(b"\n"):
            problems.append(f"{path}: torn frame, {len(data)} bytes before its end")
            return
        data = reader.unused_data
        for line in raw.splitlines():
            yield orjson.loads(line)


@dataclass
class Ticks:
    """The tick records of one session, in the order of the archive, as columns; and its gap lines."""

    seq: array = field(default_factory=lambda: array("q"))
    k: array = field(default_factory=lambda: array("q"))
    symbol: array = field(default_factory=lambda: array("i"))  # index into Files.symbols
    ts_ns: array = field(default_factory=lambda: array("q"))
    recv_ns: array = field(default_factory=lambda: array("q"))
    value: array = field(default_factory=lambda: array("q"))  # hash of all columns, to compare with the database
    gaps: list[dict[str, Any]] = field(default_factory=list)


def record_columns(value: dict[str, Any]) -> tuple[Any, ...]:
    """Return a record as the database gives it back: times in whole microseconds, numbers as float64."""
    numbers = [
        None if value[key] is None else float(value[key])
        for key in ("bid_price", "ask_price", "bid_size", "ask_size", "last_price", "volume", "open", "high", "low", "acc_volume")
    ]
    exact = [
        value[key]
        for key in (
            "symbol", "mitigation_level", "quality_flag", "kind", "provider", "market", "venue", "side", "trades", "quotes",
            "venue_seq", "phase", "ts_ns", "event_ns", "recv_ns",
        )
    ]  # fmt: skip
    event_ns = value["event_ns"]
    times = (value["ts_ns"] // 1000, None if event_ns is None else event_ns // 1000, value["recv_ns"] // 1000)
    return (*numbers, *exact, tuple(value["flags"]), *times)


class Files:
    """Everything that the files of one provider say."""

    def __init__(self, root: Path, provider: str) -> None:
        self.root, self.provider = root, provider
        self.problems: Problems = []
        self.symbols: dict[str, int] = {}
        self.sessions: dict[str, dict[str, Any]] = {}  # session -> {"start": line, "ended": rings or None}
        self._read_sessions()
        self.ticks: dict[str, Ticks] = defaultdict(Ticks)
        self._read_segments()
        self.events: list[dict[str, Any]] = []
        for path in sorted((root / "system" / "events" / provider).glob("*.jsonl")):
            self.events += lines_of(path, self.problems)
        self.gaps = [event for event in self.events if event["event_type"] == "gap_marker"]
        folder = root / "quarantine" / provider
        self.quarantine = [line for path in sorted(folder.glob("????????.jsonl")) for line in lines_of(path, self.problems)]
        self.rejected = [line for path in sorted(folder.glob("*_rejected.jsonl")) for line in lines_of(path, self.problems)]
        self._check_quarantine()

    def symbol(self, name: str) -> int:
        return self.symbols.setdefault(name, len(self.symbols))

    def _read_sessions(self) -> None:
        for line in lines_of(self.root / "system" / "sessions" / f"{self.provider}.jsonl", self.problems):
            known = self.sessions.get(line["session_id"])
            if line["event"] == "start":
                if known is not None:
                    self.problems.append(f"two start lines: {line['session_id']}")
                self.sessions[line["session_id"]] = {"start": line, "ended": None}
            elif known is None:
                self.problems.append(f"end without start: {line}")
            else:
                known["ended"] = (known["ended"] or {}) | line["rings"]

    def _read_segments(self) -> None:
        folder = self.root / "scalp" / self.provider / MARKETS[self.provider]
        for day in sorted(folder.glob("????????")):
            manifest = {line["path"]: line for line in lines_of(day / "manifest.jsonl", self.problems)}
            listed = {Path(name).name for name in manifest}
            paths = {path.name: path for path in day.iterdir()}
            for name, path in sorted(paths.items()):
                if name.endswith(".jsonl.zst"):
                    if name not in listed:
                        self.problems.append(f"{path}: no manifest line")
                        continue
                    self._read_segment(path, manifest[str(path.relative_to(self.root))])
                elif name != "manifest.jsonl" and ".torn" not in name:
                    self.problems.append(f"{path}: left over after an ordered stop")
            for name in listed - set(paths):
                self.problems.append(f"{day / name}: in the manifest, not on disk")

    def _read_segment(self, path: Path, manifest: dict[str, Any]) -> None:
        if hashlib.sha256(path.read_bytes()).hexdigest() != manifest["sha256"]:
            self.problems.append(f"{path}: sha256 differs from the manifest")
        records, spans = 0, []
        sessions = set()
        for line in segment_lines(path, self.problems):
            sessions.add(line["session_id"])
            ticks = self.ticks[line["session_id"]]
            if line.get("event_type") == "gap_marker":
                ticks.gaps.append(line)
                spans.append((line["first_seq"], line["last_seq"]))
            else:
                self._take(ticks, line, path)
                spans.append((line["seq"], line["seq"]))
                records += 1
        breaks = [(one, two) for one, two in pairwise(spans) if two[0] != one[1] + 1]
        if breaks:
            self.problems.append(f"{path}: sequences do not follow each other: {breaks[:3]}")
        found = (records, spans[0][0] if spans else None, spans[-1][1] if spans else None)
        told = (manifest["records"], manifest["first_seq"], manifest["last_seq"])
        if found != told or sessions != {manifest["session_id"]}:
            self.problems.append(f"{path}: records, first and last seq {found} of {sessions}, the manifest says {manifest}")

    def _take(self, ticks: Ticks, line: dict[str, Any], path: Path) -> None:
        ticks.seq.append(line["seq"])
        ticks.k.append(number_of(self.provider, line, self.problems, f"{path}: seq {line['seq']}"))
        ticks.symbol.append(self.symbol(line["symbol"]))
        ticks.ts_ns.append(line["ts_ns"])
        ticks.recv_ns.append(line["recv_ns"])
        ticks.value.append(hash(record_columns(line)))

    def _check_quarantine(self) -> None:
        for line in self.quarantine:
            if line["data"] is None:
                continue
            data = base64.b64decode(line["data"])
            whole = len(data) == line["length"]
            if len(data) != line["kept_bytes"] or (whole and hashlib.sha256(data).hexdigest() != line["sha256"]):
                self.problems.append(f"quarantine {line['session_id']} {line['first_seq']}: bytes, length and hash differ")


def number_of(provider: str, line: dict[str, Any], problems: Problems, where: str) -> int:
    """Return the number k of a record of the numbered market; every other column must be what k says."""
    group = GROUPS[provider]
    try:
        k = k_of_sequential_id(line["venue_seq"]) if provider == "upbit" else k_of_acc_volume(group, line["acc_volume"])
    except (ValueError, TypeError) as error:
        problems.append(f"{where}: not a numbered record: {error}")
        return -1
    told = trade(group, CODES.get(provider, "") + line["symbol"], k)
    expected: dict[str, Any] = {
        "last_price": told.price, "volume": told.size, "side": told.side, "bid_price": told.bid_price, "ask_price": told.ask_price,
        "open": told.price, "high": told.price, "low": told.price, "trades": 1, "quotes": 0, "kind": "trade",
    }  # fmt: skip
    if provider == "kis_us":
        expected["side"] = None  # its records do not tell
    if provider != "upbit":
        expected |= {"bid_size": told.bid_size, "ask_size": told.ask_size, "acc_volume": told.acc_volume}
    wrong = {key: (line[key], wanted) for key, wanted in expected.items() if line[key] != wanted}
    if wrong:
        problems.append(f"{where}: not what trade {k} of {line['symbol']} is: {wrong}")
    return k


@dataclass
class Sent:
    """What the simulated exchange says that it sent: its trades, in order, as columns; and everything else by kind."""

    k: array = field(default_factory=lambda: array("q"))
    symbol: array = field(default_factory=lambda: array("i"))
    t_ns: array = field(default_factory=lambda: array("q"))
    conn: array = field(default_factory=lambda: array("i"))  # counted over all runs of the simulator
    repeats: int = 0
    malformed: list[dict[str, Any]] = field(default_factory=list)
    other: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    ends: dict[int, dict[str, Any]] = field(default_factory=dict)  # connection -> its end line
    dos: list[dict[str, Any]] = field(default_factory=list)  # the lines of things done


def read_sent(path: Path, files: Files) -> Sent:
    """Read the log of a simulated exchange. Its last line may be torn: it was killed too."""
    sent = Sent()
    numbers: dict[int, int] = {}  # the simulator's number of a connection -> ours
    counted: dict[int, int] = {}
    raw = path.read_bytes() if path.exists() else b""
    for line in raw[: raw.rfind(b"\n") + 1].splitlines():
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError:
            sent.other["torn"] += 1  # by a kill; the next simulator appended behind it
            continue
        if "do" in value:
            sent.dos.append(value)
            if value["do"] == "connect":
                numbers[value["conn"]] = len(counted)
                counted[len(counted)] = 0
            elif value["do"] == "end" and value["conn"] in numbers:
                sent.ends[numbers[value["conn"]]] = value
            continue
        conn = numbers[value["conn"]]
        counted[conn] += 1
        if value["n"] != counted[conn]:
            files.problems.append(f"{path}: connection {conn} jumps to n={value['n']}")
            counted[conn] = value["n"]
        if value["kind"] == "malformed":
            sent.malformed.append(value)
        elif value["kind"] != "trade":
            sent.other[value["kind"]] += 1
        elif value.get("repeat"):
            sent.repeats += 1
        else:
            sent.k.append(value["k"])
            sent.symbol.append(files.symbol(value["symbol"].removeprefix(CODES.get(files.provider, ""))))
            sent.t_ns.append(value["t_ns"])
            sent.conn.append(conn)
    return sent
