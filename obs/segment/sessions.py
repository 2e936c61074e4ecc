"""The session file of a provider, data/system/sessions/<provider>.jsonl: a start line and an end line per session.

start  {"event":"start","session_id":…,"ts":…,"ts_ns":…,"provider":…,"host":…,"boot_id":…,"code_version":…,"config_hash":…,
        "rings":{"tick":131072,…}}          rings: name to capacity; durable before the session's first record is published
end    {"event":"end","session_id":…,"ts":…,"ts_ns":…,"rings":{"tick":1523,…},"host_death":false,"heard_ns":…}
                                            rings: name to final seq, -1 if none; durable before the first ring is removed; heard_ns:
                                            up to when its feed took what came, 0 if that is not known
A ring that has neither an end line nor a file died with its host. Several end lines of a session add up, ring by ring.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson

from obs.record.events import iso_ms
from obs.segment.disk import Progress, silent
from obs.segment.format import whole_number
from obs.segment.textlog import TextLog, text_lines


@dataclass(frozen=True)
class SessionStart:
    """What is known when a session begins. `rings`: name to capacity."""

    session_id: str
    provider: str
    ts_ns: int
    host: str
    boot_id: str
    code_version: str
    config_hash: str
    rings: dict[str, int]


@dataclass
class SessionInfo:
    """One session as the file tells it. `ended`: final seq per ring that an end line named, None without an end line."""

    start: SessionStart
    ended: dict[str, int] | None = None
    ended_ns: int = 0
    heard_ns: int = 0
    host_death: bool = False
    next_started_ns: int = 0  # start of the provider's next session, 0 for the newest

    @property
    def session_id(self) -> str:
        return self.start.session_id

    @property
    def started_ns(self) -> int:
        return self.start.ts_ns


def sessions_path(root: Path, provider: str) -> Path:
    return root / "system" / "sessions" / f"{provider}.jsonl"


def append_start(root: Path, start: SessionStart, progress: Progress = silent) -> None:
    """Write the start line; durable on return. Raises DiskTrouble."""
    line = {
        "event": "start", "session_id": start.session_id, "ts": iso_ms(start.ts_ns), "ts_ns": start.ts_ns, "provider": start.provider,
        "host": start.host, "boot_id": start.boot_id, "code_version": start.code_version, "config_hash": start.config_hash,
        "rings": start.rings,
    }  # fmt: skip
    _append(root, start.provider, line, progress)


def append_end(
    root: Path, provider: str, session_id: str, ts_ns: int, rings: dict[str, int], *, host_death: bool = False, heard_ns: int = 0,
    progress: Progress = silent,
) -> None:  # fmt: skip
    """Write an end line; durable on return. `rings`: name to final seq, -1 if nothing was published. Raises DiskTrouble."""
    line = {
        "event": "end", "session_id": session_id, "ts": iso_ms(ts_ns), "ts_ns": ts_ns, "rings": rings, "host_death": host_death,
        "heard_ns": heard_ns,
    }  # fmt: skip
    _append(root, provider, line, progress)


def _append(root: Path, provider: str, line: dict[str, Any], progress: Progress) -> None:
    path = sessions_path(root, provider)
    log = TextLog(root, path.parent, lambda _: path.name, progress)
    log.append(orjson.dumps(line), line["ts_ns"])
    try:
        log.flush()
    finally:
        log.close()


def _start(value: dict[str, Any]) -> SessionStart:
    names = ("session_id", "provider", "host", "boot_id", "code_version", "config_hash")
    texts: dict[str, Any] = {name: value[name] for name in names}
    if not all(isinstance(text, str) for text in texts.values()):
        raise TypeError("not a start line")
    return SessionStart(ts_ns=whole_number(value["ts_ns"]), rings=_rings(value), **texts)


def _rings(value: dict[str, Any]) -> dict[str, int]:
    if not isinstance(value["rings"], dict):
        raise TypeError("rings are no object")
    return {name: whole_number(number) for name, number in value["rings"].items()}


def read_sessions(root: Path, provider: str) -> list[SessionInfo]:
    """Return the sessions of a provider in the order they began; lines that do not read are passed over."""
    found: dict[str, SessionInfo] = {}
    for _, line in text_lines(sessions_path(root, provider)):
        try:
            value = orjson.loads(line)
            session_id, event = value["session_id"], value["event"]
            if event == "start" and session_id not in found:
                found[session_id] = SessionInfo(_start(value))
            elif event == "end" and session_id in found:
                info = found[session_id]
                rings, ts_ns, host_death = _rings(value), whole_number(value["ts_ns"]), value["host_death"]
                heard_ns = whole_number(value.get("heard_ns", 0))
                info.ended = (info.ended or {}) | rings
                info.ended_ns = ts_ns
                info.heard_ns = max(info.heard_ns, heard_ns)
                info.host_death = info.host_death or bool(host_death)
        except (orjson.JSONDecodeError, KeyError, TypeError):
            continue
    sessions = list(found.values())
    for one, following in pairwise(sessions):
        one.next_started_ns = following.started_ns
    return sessions
