"""Sessions and their shared memory, as the supervisor of a provider sees them: judge the old, make the new, remove the drained.

Order at a start: old sessions are judged, the rings of the new one are made, its start line is fsynced, then children are
spawned. Order at an end: the archive writer has stored or gap-covered all of a session, its end line is fsynced, then its
rings are unlinked.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field
from pathlib import Path

from obs import __version__
from obs.clock import Clock
from obs.config import Config, config_hash
from obs.config.process import OldSession, SessionSpec
from obs.errors import SchemaMismatch, ShmFull
from obs.ledger import read as read_intake
from obs.record.events import new_session_id, provider_of
from obs.record.schema import DTYPES
from obs.ring import Ring, attach_ring, create_ring, fence
from obs.segment.sessions import SessionInfo, SessionStart, append_end, append_start, read_sessions
from obs.shm import Board, Counters, block_path, remove


@dataclass
class OpenSession:
    """A session whose rings this supervisor holds mapped."""

    session_id: str
    rings: dict[str, Ring]
    lost: dict[str, str] = field(default_factory=dict)
    ended_ns: int = 0
    started_ns: int = 0

    def drained(self) -> bool:
        """Whether the archive writer has stored or gap-covered everything; true only of a session nobody publishes to."""
        return all(ring.durable("archive") >= ring.published for ring in self.rings.values())

    def final(self) -> dict[str, int]:
        """Return the last sequence of each ring that is there, -1 if nothing was published to it."""
        return {name: ring.published - 1 for name, ring in self.rings.items()}

    def remove(self) -> None:
        for ring in self.rings.values():
            remove(ring.path)
            ring.close()
        self.rings = {}


class ProviderMemory:
    """All shared memory of one provider. Safety: only its supervisor, which owns the provider's lock, makes one."""

    def __init__(self, config: Config, name: str, clock: Clock) -> None:
        self._config, self._name, self._clock = config, name, clock
        self._folder, self._data = config.ring.dir, config.data_dir
        self.notes: list[tuple[str, dict[str, object]]] = []  # what an operator should read, as (event, facts)
        self.board = self._open_board()
        self.counters_path = Counters.path(self._folder, self._data, name)
        self.counters = Counters(self.counters_path, make=True)
        self._infos = read_sessions(self._data, name)
        self._remove_orphans()
        try:
            self.old = self._judge()
            self.current = self._begin()
        except ShmFull:
            self.counters.close()
            remove(self.counters_path)
            raise
        for session in self.old:  # the newest of them ended, as far as anybody can know, when the present one began
            session.ended_ns = session.ended_ns or self._started_ns

    def spec(self) -> SessionSpec:
        """Return what the children are told."""
        return SessionSpec(
            self.current.session_id,
            self._started_ns,
            {name: ring.path for name, ring in self.current.rings.items()},
            tuple(
                OldSession(
                    old.session_id, {name: ring.path for name, ring in old.rings.items()}, dict(old.lost), old.ended_ns, old.started_ns
                )
                for old in self.old
            ),
        )

    def remove_drained(self) -> list[str]:
        """End and remove the old sessions that are drained; return their ids. Call it while an archive writer is ready.

        The tick ring of a feed that died owing something is kept until the next feed has taken its intake over.
        """
        intake = read_intake(self.board["intake"])
        owed = intake.session_id if intake is not None and not intake.head["clean"] else ""
        done = [old for old in self.old if old.drained() and old.session_id != owed]
        for old in done:
            self._end(old)
            self.old.remove(old)
        return [old.session_id for old in done]

    def missing(self) -> list[str]:
        """Return the rings of the present session whose files somebody has removed: no child could attach them any more."""
        return [name for name, ring in self.current.rings.items() if not ring.path.exists()]

    def end_current(self) -> bool:
        """After an ordered stop: end and remove the present session if all of it is archived; return whether it was."""
        intake = read_intake(self.board["intake"])
        head = intake.head if intake is not None and intake.session_id == self.current.session_id else None
        if (head is not None and not head["clean"]) or not self.current.drained():
            return False
        self._end(self.current, int(head["last_recv_ns"]) if head is not None else 0)
        return True

    def close(self) -> None:
        """Unmap everything; what is not drained stays for the next start."""
        for session in [*self.old, self.current]:
            for ring in session.rings.values():
                ring.close()
        self.counters.close()
        remove(self.counters_path)
        self.board.close()

    def _end(self, session: OpenSession, heard_ns: int = 0) -> None:
        # Durable: the end line before the first ring is unlinked, or its sequences could not be judged any more.
        append_end(
            self._data, self._name, session.session_id, self._clock.wall_ns(), session.final(),
            host_death="host_death" in session.lost.values(), heard_ns=heard_ns,
        )  # fmt: skip
        session.remove()

    def _open_board(self) -> Board:
        path = Board.path(self._folder, self._data, self._name)
        try:
            return Board.attach(path, fence)
        except FileNotFoundError:
            pass
        except SchemaMismatch as error:
            self.notes.append(("board_replaced", {"error": str(error)}))
        return Board.create(path, fence)

    def _judge(self) -> list[OpenSession]:
        """Find the sessions without an end line, oldest first, and what is left of each."""
        found = []
        for info in self._infos:
            if info.ended is not None:
                continue
            session = OpenSession(info.session_id, {}, ended_ns=info.next_started_ns, started_ns=info.start.ts_ns)
            for ring in self._rings_of(info):
                path = block_path(self._folder, self._data, info.session_id, ring)
                try:
                    session.rings[ring] = attach_ring(path, DTYPES[ring], info.session_id)
                except FileNotFoundError:
                    session.lost[ring] = "host_death"
                except SchemaMismatch as error:
                    session.lost[ring] = "ring_foreign"
                    self._set_aside(path, error)
            found.append(session)
        return found

    @staticmethod
    def _rings_of(info: SessionInfo) -> list[str]:
        return [name for name in (info.start.rings or DTYPES) if name in DTYPES]

    def _set_aside(self, path: Path, error: SchemaMismatch) -> None:
        """Move a ring that is not ours to data/quarantine/rings; nothing of it is read."""
        folder = self._data / "quarantine" / "rings"
        folder.mkdir(parents=True, exist_ok=True, mode=0o750)
        target = folder / f"{path.name}.{self._clock.wall_ns()}"
        # Another file system: copy, sync, then remove the name.
        with path.open("rb") as source, target.open("xb") as kept:
            os.fchmod(kept.fileno(), 0o640)
            while block := source.read(1 << 20):
                kept.write(block)
            kept.flush()
            os.fsync(kept.fileno())
        path.unlink()
        self.notes.append(("ring_set_aside", {"path": str(target), "error": str(error)}))

    def _remove_orphans(self) -> None:
        """Remove rings of this provider whose session never got its start line: nothing was ever published to them."""
        known = {info.session_id for info in self._infos}
        for path in self._folder.glob("obs-*"):
            ring = path.name.rpartition("-")[2]
            if ring not in DTYPES:
                continue
            try:
                found = attach_ring(path, DTYPES[ring])
            except (SchemaMismatch, OSError):
                continue
            session_id, published = found.session_id, found.published
            found.close()
            ours = block_path(self._folder, self._data, session_id, ring) == path and provider_of(session_id) == self._name
            if ours and session_id not in known and published == 0:
                remove(path)
        for path in self._folder.glob(".obs-*.tmp"):
            pid = path.suffixes[-2][1:] if len(path.suffixes) >= 2 else ""
            if pid.isdigit() and not Path("/proc", pid).exists():
                remove(path)

    def _begin(self) -> OpenSession:
        """Make a new session, or go on with the newest one where there is no room for another."""
        waiting = [old for old in self.old if old.rings]
        whole = [old for old in waiting if not old.lost]
        if len(waiting) >= self._config.ring.max_sessions and whole:
            return self._continue(whole[-1], "max_sessions")
        try:
            return self._create()
        except ShmFull:
            if not whole:
                raise
            return self._continue(whole[-1], "no room in shared memory")

    def _continue(self, session: OpenSession, why: str) -> OpenSession:
        self.old.remove(session)
        self._started_ns = next(iter(session.rings.values())).created_ns
        self.notes.append(("session_continued", {"session": session.session_id, "why": why}))
        return session

    def _create(self) -> OpenSession:
        now = self._started_ns = self._clock.wall_ns()
        while (session_id := new_session_id(self._name, now)) in {info.session_id for info in self._infos}:
            pass  # one in 65,536, for two starts within a second
        session = OpenSession(session_id, {})
        capacities = self._config.ring.capacities()
        try:
            for ring, dtype in DTYPES.items():
                path = block_path(self._folder, self._data, session.session_id, ring)
                session.rings[ring] = create_ring(path, dtype, capacities[ring], session.session_id, ring, now)
        except ShmFull:
            session.remove()
            raise
        start = SessionStart(
            session.session_id, self._name, now, socket.gethostname(), boot_id(), __version__, config_hash(self._config), capacities
        )
        append_start(self._data, start)
        return session


def boot_id() -> str:
    """Return the kernel's id of this boot, by which a host that died is told from one that lives."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
