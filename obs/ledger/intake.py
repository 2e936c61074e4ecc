"""The intake of a feed: what came in, by minute and symbol, counted before sampling, in shared memory that outlives it.

A bucket is the counts of one minute. Its counts events are published after the minute's last record; a further bucket
for the same minute (a clock that stepped back, a restart) is added by whoever reads. `n` numbers the buckets of a
provider for ever, so that an event published twice around a crash is recognised.

Invariant: the cell is written whole, by one flip (obs.shm.board). What it holds is therefore consistent:
messages = data + control + quarantined, and for each row inputs = trades + quotes + ignored.
Order: the cell is written before the records that hold its inputs are published, with `pending` = inputs folded into
records of sequences >= `as_of` (published by then or not). So after a death, lost = pending - what the ring holds from
`as_of` on.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import numpy as np

from obs.record.schema import IGNORED, INPUT_TRADE, SYMBOL_BYTES
from obs.shm.board import Cell

_HEAD: Final = np.dtype(
    [
        ("layout", "<u8"),  # of this module: a cell that an older program wrote is not read
        ("session_id", "S64"),
        ("n", "<i8"),
        ("minute_ns", "<i8"),
        ("messages", "<i8"),
        ("data", "<i8"),
        ("control", "<i8"),
        ("quarantined", "<i8"),
        ("tick_as_of", "<i8"),
        ("quarantine_as_of", "<i8"),
        ("pending_quarantined", "<i8"),
        ("last_recv_ns", "<i8"),
        ("gap_start_ns", "<i8"),  # a loss that is still open: since when; 0 = none
        ("restart_lost", "<i8"),  # of a dead feed, until its gap is published; with restart_of and restart_start_ns
        ("restart_start_ns", "<i8"),  # 0 = no restart gap is owed
        ("restart_end_ns", "<i8"),  # as it was told, if it was: whoever tells it again must tell of more
        ("restart_told_ns", "<i8"),  # start of the last restart gap that is settled: the next one must have another
        ("restart_of", "S64"),
        ("clean", "<i8"),  # 1 = everything counted here was published, nothing is owed
        ("rows", "<i8"),
    ]
)
_ROW: Final = np.dtype(
    [
        ("symbol", f"S{SYMBOL_BYTES}"),
        ("pad", "V4"),
        ("inputs", "<i8"),
        ("trades", "<i8"),  # folded, with a trade
        ("quotes", "<i8"),  # folded, all others
        ("pending_trades", "<i8"),
        ("pending_quotes", "<i8"),
        ("ignored", "<i8", (8,)),
    ]
)
assert len(IGNORED) <= 8
_LAYOUT: Final = zlib.crc32(repr((_HEAD.descr, _ROW.descr)).encode())
_IGNORED: Final = 2  # of the fates of an input: a trade, another, or ignored for one of 8 reasons
_FATES: Final = _IGNORED + 8
_MALFORMED: Final = IGNORED.index("malformed")


class Intake:
    """The counts of the present bucket. `head` and `table` are views of one buffer that `commit` publishes whole."""

    def __init__(self, cell: Cell, symbols: np.ndarray) -> None:
        """`symbols`: (rows,), row 0 empty = unknown symbols."""
        self._cell = cell
        self._bytes = np.zeros(_HEAD.itemsize + len(symbols) * _ROW.itemsize, np.uint8)
        self.head = self._bytes[: _HEAD.itemsize].view(_HEAD)[0]
        self.table = self._bytes[_HEAD.itemsize :].view(_ROW)
        self.table["symbol"] = symbols
        self.head["rows"] = len(symbols)
        self.head["layout"] = _LAYOUT

    def count(self, inputs: np.ndarray) -> None:
        """Count `inputs` (n,), dtype INPUT, each either folded or ignored."""
        ignore = inputs["ignore"]
        fate = np.where(ignore, ignore + _IGNORED, inputs["kind"] != INPUT_TRADE)  # 0 = trade, 1 = quote
        places = inputs["row"].astype(np.intp) * _FATES + fate
        counts = np.bincount(places, minlength=len(self.table) * _FATES).reshape(len(self.table), _FATES)
        self.table["inputs"] += counts.sum(axis=1)
        self.table["trades"] += counts[:, 0]
        self.table["quotes"] += counts[:, 1]
        if ignore.any():
            self.table["ignored"] += counts[:, _IGNORED:]

    def count_malformed(self, spans: int) -> None:
        """Count bad spans inside a data message: each one input of an unknown symbol."""
        self.table["inputs"][0] += spans
        self.table["ignored"][0, _MALFORMED] += spans

    def commit(self) -> None:
        """Publish the counts to shared memory, whole."""
        self._cell.write(self._bytes.data)

    def next_bucket(self, minute_ns: int) -> None:
        """Begin the bucket of another minute with zero counts; what is pending stays pending."""
        head, table = self.head, self.table
        head["n"] += 1
        head["minute_ns"] = minute_ns
        for name in ("messages", "data", "control", "quarantined"):
            head[name] = 0
        for name in ("inputs", "trades", "quotes", "ignored"):
            table[name] = 0


class Snapshot(NamedTuple):
    """An intake as a reader finds it: head (scalar), table (rows,)."""

    head: Any
    table: np.ndarray

    @property
    def session_id(self) -> str:
        return str(self.head["session_id"].decode("ascii", "replace"))


def read(cell: Cell) -> Snapshot | None:
    """Return the intake that `cell` holds, owned; None if none was written, or by a program that laid it out otherwise."""
    value = cell.read()
    if len(value) < _HEAD.itemsize:
        return None
    head = np.frombuffer(value, _HEAD, 1)[0]
    if head["layout"] != _LAYOUT or int(head["rows"]) * _ROW.itemsize != len(value) - _HEAD.itemsize:
        return None
    table = np.frombuffer(value, _ROW, int(head["rows"]), _HEAD.itemsize)
    return Snapshot(head, table)


def broken_identity(snapshot: Snapshot) -> str:
    """Return which identity of P1 the counts break, "" if they hold."""
    head, table = snapshot
    fates = int(head["data"] + head["control"] + head["quarantined"])
    if head["messages"] != fates:
        return f"messages={int(head['messages'])}, expected data + control + quarantined = {fates}"
    wrong = np.flatnonzero(table["inputs"] != table["trades"] + table["quotes"] + table["ignored"].sum(axis=1))
    if len(wrong):
        row = table[wrong[0]]
        return f"symbol={row['symbol'].decode('ascii', 'replace')!r} inputs={int(row['inputs'])}, expected folded + ignored"
    return ""


def counts_payloads(
    snapshot: Snapshot,
    tick_seq: int,
    lost_trades: np.ndarray | None = None,
    lost_quotes: np.ndarray | None = None,
    lost_quarantined: int = 0,
) -> Iterator[tuple[str | None, dict[str, Any]]]:
    """Yield (symbol or None, payload) of each counts event of a bucket, the provider's own last.

    `lost_trades`, `lost_quotes`: (rows,), inputs of a dead feed that no record holds.
    """
    head, table = snapshot
    common = {"minute_ns": int(head["minute_ns"]), "of_session": snapshot.session_id, "n": int(head["n"])}
    rows = np.flatnonzero(table["inputs"])
    for row in rows.tolist():
        counts = table[row]
        symbol = counts["symbol"].decode("ascii", "replace")
        ignored = {name: int(number) for name, number in zip(IGNORED, counts["ignored"], strict=False) if number}
        lost = {} if lost_trades is None or lost_quotes is None else {
            "lost_trades": int(lost_trades[row]), "lost_quotes": int(lost_quotes[row])
        }  # fmt: skip
        yield symbol, {
            **common, "symbol": symbol, "inputs": int(counts["inputs"]), "trades": int(counts["trades"]),
            "quotes": int(counts["quotes"]), **lost, "ignored": ignored,
        }  # fmt: skip
    yield None, {
        **common, "symbol": None, "messages": int(head["messages"]), "data": int(head["data"]), "control": int(head["control"]),
        "quarantined": int(head["quarantined"]), "lost_quarantined": lost_quarantined, "tick_seq": tick_seq, "symbols": len(rows),
    }  # fmt: skip
