"""One-minute bars: the SQL function of sql/migrations does the work; here it is called for a range of minutes."""

from __future__ import annotations

from obs.clock import NS
from obs.pg.connect import Connection, translated
from obs.pg.gaps import moment
from obs.pg.statements import statement


def fill_bars(conn: Connection, provider: str, from_ns: int, to_ns: int) -> int:
    """Fill scalp_1m_bars for the minutes M with from_ns <= M < to_ns and return the number of bars written.

    Idempotent, in its own transaction: call it after the commit of the rows. Raises LoadRetryable and closes `conn`.
    """
    with translated(conn), conn.transaction():
        facts = {"provider": provider, "from_ts": moment(from_ns), "to_ts": moment(to_ns)}
        row = conn.execute(statement("fill_bars"), facts).fetchone()
    return 0 if row is None else int(row[0])


def last_bar_ns(conn: Connection, provider: str, since_ns: int) -> int:
    """Return the minute (UTC ns) of the newest bar of a provider that is not older than `since_ns`, 0 if there is none."""
    with translated(conn):
        row = conn.execute(statement("last_bar"), {"provider": provider, "since": moment(since_ns)}).fetchone()
    return 0 if row is None or row[0] is None else int(row[0].timestamp()) * NS


def late_minutes(conn: Connection, provider: str, from_ns: int, to_ns: int) -> list[int]:
    """Return the minutes M with from_ns <= M < to_ns, whole ones, whose bars do not hold all the records that are stored by now."""
    facts = {"provider": provider, "from_ns": from_ns, "to_ns": to_ns, "from_ts": moment(from_ns), "to_ts": moment(to_ns)}
    with translated(conn):
        return [int(minute.timestamp()) * NS for (minute,) in conn.execute(statement("late_minutes"), facts)]
