"""Gap lines and sessions to their tables, and the loader that copies them from text files under a byte-offset watermark.

A gap line is evidence: whatever it holds, it becomes one row. Values that a column cannot hold become null there, and what
has no column is kept in `more`. Rows have the key of gap lines, so storing one twice changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson

from obs.errors import LoadRetryable, OwnedElsewhere
from obs.pg.connect import Connection, Dsn, close, connect, translated
from obs.pg.statements import statement
from obs.record.events import GAP_KEYS

_TEXTS: Final = ("scope", "reason", "session_id", "provider", "symbol", "ring", "sink", "severity", "event_ring")
_WHOLES: Final = ("first_seq", "last_seq", "lost", "event_seq", "gap_start_ns", "gap_end_ns")
_NUMBERS: Final = ("gap_seconds", "acc_volume_before", "acc_volume_after")
_COLUMNS: Final = {*GAP_KEYS, *_WHOLES}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def gap_values(line: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of gap_insert for one gap line. Never raises, whatever the line holds."""
    values: dict[str, Any] = {key: _text(line.get(key)) for key in _TEXTS}
    values |= {key: _whole(line.get(key)) for key in _WHOLES}
    values |= {key: _number(line.get(key)) for key in _NUMBERS}
    for key, ns in (("gap_start_ts", "gap_start_ns"), ("gap_end_ts", "gap_end_ns")):
        values[key] = _moment(line.get(key)) if values[ns] is None else moment(values[ns])
    values["inside"] = _json(line.get("inside"))
    values["more"] = _json({key: value for key, value in line.items() if key not in _COLUMNS} or None)
    return values


def insert_gaps(conn: Connection, lines: Sequence[Mapping[str, Any]]) -> None:
    """Store gap lines in the transaction that is open; those already stored stay as they are."""
    if lines:
        conn.cursor().executemany(statement("gap_insert"), [gap_values(line) for line in lines])


@dataclass(frozen=True)
class TextPosition:
    """How far a text archive has been read: bytes of `file`, whole lines only. Files are read in the order of their names."""

    file: str
    offset: int


class GapLoader:
    """Copies gap lines and sessions of one provider into the database, each place of the text archive once.

    One owner at a time, by `holder`, as RingLoader. Safety: one thread of one process. After LoadRetryable: back off, `open`.
    """

    def __init__(self, dsn: Dsn, provider: str, holder: str) -> None:
        self._dsn = dsn
        self._holder = holder
        self._provider = provider
        self._key = {"source_type": "gaps", "provider": provider, "session_id": "", "ring": ""}
        self._conn: Connection | None = None
        self._taken = False
        self._position = TextPosition("", 0)

    def open(self) -> TextPosition:
        """Connect and return how far the archive was read, ("", 0) at first. Raises as RingLoader.open."""
        self.close()
        self._conn = conn = connect(self._dsn, f"obs load {self._provider} gaps")
        with translated(conn):
            offset, file = take_watermark(conn, self._key, self._holder, takes=not self._taken, start=0)
        self._taken = True
        self._position = TextPosition(file or "", offset)
        return self._position

    def commit(self, lines: Sequence[Mapping[str, Any]], position: TextPosition) -> None:
        """Store gap lines and the position behind them in one transaction.

        Raises LoadRetryable (nothing, or everything, is stored: `open` says which), OwnedElsewhere.
        """
        conn = self._conn
        if conn is None or conn.closed:
            raise LoadRetryable("gap loader is not open", provider=self._provider)
        old = self._position
        move = self._key | {
            "holder": self._holder, "old_seq": old.offset, "old_file": old.file or None, "new_seq": position.offset,
            "new_file": position.file or None, "ts": None,
        }  # fmt: skip
        with translated(conn), conn.transaction():
            if conn.execute(statement("watermark_move"), move).rowcount != 1:
                check_holder(conn, self._key, self._holder)
                raise LoadRetryable("gap watermark has moved, open again", provider=self._provider, expected=old)
            insert_gaps(conn, lines)
        self._position = position

    def save_sessions(self, sessions: Iterable[Mapping[str, Any]]) -> None:
        """Store or complete rows of the table sessions; what a mapping lacks keeps its stored value.

        Keys: session_id, and any of host, boot_id, epoch, code_version, config_hash, started_ns, ended_ns, host_death,
        rings and final_seqs (name -> number).
        """
        conn = self._conn
        if conn is None or conn.closed:
            raise LoadRetryable("gap loader is not open", provider=self._provider)
        with translated(conn), conn.transaction():
            for session in sessions:
                conn.execute(statement("session_upsert"), session_values(session, self._provider))

    def close(self) -> None:
        """Close the connection; `open` may follow."""
        close(self._conn)
        self._conn = None


def session_values(session: Mapping[str, Any], provider: str) -> dict[str, Any]:
    """Return the parameters of session_upsert."""
    values: dict[str, Any] = {key: _text(session.get(key)) for key in ("session_id", "host", "boot_id", "code_version", "config_hash")}
    values |= {key: _whole(session.get(key)) for key in ("epoch", "started_ns", "ended_ns")}
    values |= {key: _json(session.get(key)) for key in ("rings", "final_seqs")}
    values["provider"] = provider
    values["host_death"] = session.get("host_death")
    values["started_at"] = moment(values["started_ns"])
    values["ended_at"] = moment(values["ended_ns"])
    return values


def take_watermark(conn: Connection, key: Mapping[str, str], holder: str, *, takes: bool, start: int) -> tuple[int, str | None]:
    """Return (last_seq, file) of a watermark, made at `start` if it is missing.

    takes: become its holder, whoever it was. Otherwise OwnedElsewhere if another has become it meanwhile.
    """
    facts = {**key, "holder": holder, "last_seq": start}
    conn.execute(statement("watermark_create"), facts)
    row = conn.execute(statement("watermark_take" if takes else "watermark_read"), facts).fetchone()
    if row is None:
        raise LoadRetryable("watermark vanished while it was read", **key)
    if row[0] != holder:
        raise OwnedElsewhere("another loader has taken over", **key, holder=row[0], expected=holder)
    return int(row[1]), row[2]


def check_holder(conn: Connection, key: Mapping[str, str], holder: str) -> int | None:
    """Return the last_seq of a watermark, None if it has no row; OwnedElsewhere unless `holder` holds it."""
    row = conn.execute(statement("watermark_read"), key).fetchone()
    if row is None:
        return None
    if row[0] != holder:
        raise OwnedElsewhere("another loader has taken over", **key, holder=row[0], expected=holder)
    return int(row[1])


def moment(ns: int | None) -> datetime | None:
    """Return UTC epoch nanoseconds as a datetime, truncated to microseconds; None stays None."""
    return None if ns is None else _EPOCH + timedelta(microseconds=ns // 1000)


def _moment(text: object) -> datetime | None:
    try:
        found = datetime.fromisoformat(str(text))
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def _text(value: object) -> str | None:
    if value is None:
        return None
    return str(value).replace("\0", "").encode("utf-8", "replace").decode()


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63 else None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def _json(value: object) -> str | None:
    if value is None:
        return None
    try:
        return orjson.dumps(_clean(value), option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:  # a number or a text that JSON cannot express
        return orjson.dumps(ascii(value)).decode()


def _clean(value: Any) -> Any:
    """Return a JSON value without the one character that PostgreSQL does not store."""
    if isinstance(value, str):
        return value.replace("\0", "")
    if isinstance(value, list):
        return [_clean(inner) for inner in value]
    if isinstance(value, dict):
        return {_clean(key): _clean(inner) for key, inner in value.items()}
    return value
