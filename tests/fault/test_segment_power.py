"""Power loss at every disk call of the archive: what was acknowledged is there, the rest is a prefix, nothing is invented.

The calls of a run are recorded; for each moment between two calls the folder is rebuilt as the disk may show it. What an fsync
covers is there; of the rest, names and bytes may survive or not, in part, or as zeros. Recovery then runs in the rebuilt folder.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest
from segment_lines import NS, SEOUL, SESSION, START_NS, check_rows, gap_of, put, series_at, writer_at

from obs.errors import DiskTrouble
from obs.record.jsonl import is_gap
from obs.segment.disk import observe
from obs.segment.format import Frame, line_span, pieces
from obs.segment.reader import find, last_archived, read_lines, verify
from obs.segment.recover import recover_open
from obs.segment.sessions import SessionStart, append_start, read_sessions
from obs.segment.textlog import TextLog, day_files, day_name, text_lines


@dataclass
class Node:
    """A file or folder: what a program sees, and what is safe."""

    live: Any
    safe: Any
    poison: tuple[int, int] | None = None  # bytes whose fsync failed: clean in memory, not on disk


def half(live: bytes, safe: bytes) -> bytes:
    return live[: len(safe) + (len(live) - len(safe) + 1) // 2]


def holed(live: bytes, safe: bytes) -> bytes:
    middle = len(half(live, safe))
    return live[: len(safe)] + bytes(max(0, middle - len(safe))) + live[middle:]


# (names that survive, bytes that survive)
OUTCOMES: dict[str, tuple[str, Callable[[bytes, bytes], bytes]]] = {
    "nothing unsynced": ("safe", lambda live, safe: safe),
    "everything": ("live", lambda live, safe: live),
    "names only": ("live", lambda live, safe: safe),
    "bytes only": ("safe", lambda live, safe: live),
    "half of the bytes": ("live", lambda live, safe: half(live, safe) if live[: len(safe)] == safe else safe),
    "zeros for bytes": ("live", lambda live, safe: safe + bytes(max(0, len(live) - len(safe)))),
    "a hole in the bytes": ("live", lambda live, safe: holed(live, safe) if live[: len(safe)] == safe else safe),
}


class Machine:
    """A file system in memory that is told of every call before it happens."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.nodes: list[Node] = [Node({}, {})]  # folders map names to node numbers
        self.states: list[tuple[Any, Any]] = []  # (a copy of the nodes, what was acknowledged) before each call
        self.acknowledged: Callable[[], Any] = lambda: None
        self.fail: Callable[[str, Path], bool] = lambda step, path: False
        for path in sorted(root.rglob("*")):
            self._enter(path, Node({}, {}) if path.is_dir() else Node(path.read_bytes(), path.read_bytes()))
            folder = self._node(path.parent)
            folder.safe = dict(folder.live)

    def _node(self, path: Path) -> Node:
        node = self.nodes[0]
        for part in path.relative_to(self.root).parts:
            node = self.nodes[node.live[part]]
        return node

    def _enter(self, path: Path, node: Node) -> None:
        self.nodes.append(node)
        self._node(path.parent).live[path.name] = len(self.nodes) - 1

    def snapshot(self) -> None:
        copy = [Node(*((dict(one.live), dict(one.safe)) if isinstance(one.live, dict) else (one.live, one.safe))) for one in self.nodes]
        self.states.append((copy, self.acknowledged()))

    def call(self, step: str, path: Path, detail: Any) -> None:
        self.snapshot()
        if self.fail(step, path):
            if step == "fsync":
                node = self._node(path)
                node.poison = (len(node.safe), len(node.live))
            raise OSError(errno.EIO, "injected")
        if step == "mkdir":
            self._enter(path, Node({}, {}))
        elif step == "create":
            self._enter(path, Node(b"", b""))
        elif step == "write":
            node = self._node(path)
            assert detail[0] == len(node.live), "appends only"
            node.live += detail[1]
        elif step == "cut":
            node = self._node(path)
            node.live = node.live[:detail]
            if node.poison and detail <= node.poison[0]:
                node.poison = None
            self._sync(node)
        elif step == "fsync":
            self._sync(self._node(path))
        elif step == "fsync_folder":
            node = self._node(path)
            node.safe = dict(node.live)
        elif step == "rename":
            assert detail.name not in self._node(detail.parent).live, "never over an existing name"
            self._node(detail.parent).live[detail.name] = self._node(path.parent).live.pop(path.name)
        elif step == "unlink":
            self._node(path.parent).live.pop(path.name, None)

    @staticmethod
    def _sync(node: Node) -> None:
        node.safe = node.live
        if node.poison:
            low, high = node.poison
            node.safe = node.live[:low] + bytes(min(high, len(node.live)) - low) + node.live[high:]

    def check(self) -> None:
        """The model has followed the real folder."""
        files = {path.relative_to(self.root): path.read_bytes() for path in self.root.rglob("*") if path.is_file()}
        assert files == dict(walk(self.nodes, 0, "live", lambda live, safe: live, Path()))


def walk(nodes: list[Node], number: int, names: str, content: Callable[[bytes, bytes], bytes], at: Path) -> Iterator[tuple[Path, bytes]]:
    for name, inner in getattr(nodes[number], names).items():
        node = nodes[inner]
        if isinstance(node.live, dict):
            yield from walk(nodes, inner, names, content, at / name)
        else:
            yield at / name, content(node.live, node.safe)


@dataclass
class Outcome:
    root: Path
    acknowledged: Any
    where: str = ""
    files: dict[str, int] = field(default_factory=dict)


def outcomes(machine: Machine, folder: Path) -> Iterator[Outcome]:
    """Rebuild every different folder that a power loss may leave."""
    seen: set[Any] = set()
    for number, (nodes, acknowledged) in enumerate(machine.states):
        for name, (names, content) in OUTCOMES.items():
            files = dict(walk(nodes, 0, names, content, Path()))
            key = (tuple(sorted(files.items())), acknowledged)
            if key in seen:
                continue
            seen.add(key)
            root = folder / f"{number}_{name.replace(' ', '_')}"
            root.mkdir()
            for path, data in files.items():
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                (root / path).write_bytes(data)
            yield Outcome(root, acknowledged, f"before call {number}: {name}")


def archived(root: Path) -> list[int]:
    seqs: list[int] = []
    for segment in find(series_at(root), SESSION):
        verdict = verify(segment.path)
        assert verdict.good, verdict
        lines = [line for _, line in read_lines(segment.path)]
        check_rows([line for line in lines if not is_gap(line)])
        seqs += [seq for line in lines for seq in range(line_span(line)[0], line_span(line)[1] + 1)]
    return seqs


def run_archive(machine: Machine, tries: int = 1) -> None:
    """Write 12 batches over three windows, with a gap, sealing twice."""
    writer = writer_at(machine.root, segment_s=60)
    machine.acknowledged = lambda: writer.durable_seq
    seq = 0
    for turn in range(12):
        if turn == 5:
            writer.append_gap(gap_of(seq, seq + 6))
            seq += 7
        put(writer, seq, 4, step_ns=3 * NS)
        seq += 4
        for attempt in range(tries):
            try:
                writer.seal() if turn in (4, 11) else writer.flush()
                break
            except DiskTrouble:
                assert attempt + 1 < tries
    machine.snapshot()
    machine.check()


@pytest.mark.parametrize("failing", [None, "write", "fsync", "fsync_folder", "rename", "create"])
def test_the_archive_is_a_prefix_that_holds_everything_acknowledged(tmp_path, failing):
    (tmp_path / "run").mkdir()
    machine = Machine(tmp_path / "run")
    left = [0]
    if failing:
        counts = {"write": 3, "fsync": 4, "fsync_folder": 9, "rename": 1, "create": 4}

        def fail(step: str, path: Path) -> bool:
            left[0] += step == failing
            return step == failing and left[0] in (counts[failing], counts[failing] + 1)

        machine.fail = fail
    with observe(machine.call):
        run_archive(machine, tries=5)
    tried = 0
    for outcome in outcomes(machine, tmp_path):
        tried += 1
        recover_open(series_at(outcome.root))
        found = archived(outcome.root)
        assert found == list(range(len(found))), outcome.where
        assert len(found) > outcome.acknowledged, outcome.where
        writer = writer_at(outcome.root, segment_s=60)
        put(writer, len(found), 5, step_ns=3 * NS)
        writer.seal()
        assert archived(outcome.root) == list(range(len(found) + 5)), outcome.where
    assert tried > 60


def test_recovery_itself_may_be_interrupted(tmp_path):
    """Power fails at every call of a recovery that seals, cuts, repairs and rebuilds the manifest; the next one ends it."""
    run = tmp_path / "run"
    run.mkdir()
    writer = writer_at(run, segment_s=60)
    for turn in range(9):
        put(writer, turn * 15, 15, step_ns=NS)  # three windows
        writer.flush()
    day = run / "scalp/kis/kr_stocks/20260122"
    (day / "manifest.jsonl").write_bytes((day / "manifest.jsonl").read_bytes()[:-9])
    path = next(day.glob("*.open"))
    data = bytearray(path.read_bytes())
    frames = [piece for piece in pieces(bytes(data)) if isinstance(piece, Frame)]
    assert len(frames) >= 1
    hurt = sorted(day.glob("*.zst"))[-1]
    middle = [piece for piece in pieces(hurt.read_bytes()) if isinstance(piece, Frame)][1]
    broken = bytearray(hurt.read_bytes())
    broken[middle.end - 2] ^= 4
    hurt.write_bytes(broken)
    path.write_bytes(data[:-2])

    machine = Machine(run)
    with observe(machine.call):
        recover_open(series_at(run))
    machine.snapshot()
    machine.check()
    expected = archived(run)
    assert expected == list(range(len(expected)))
    assert len(machine.states) > 20
    for outcome in outcomes(machine, tmp_path):
        recover_open(series_at(outcome.root))
        assert archived(outcome.root) == expected, outcome.where
        kept = [one.read_bytes() for one in (outcome.root / "quarantine/segments").glob("*.zst*") if not one.name.endswith(".json")]
        assert bytes(broken) in kept, outcome.where
        assert [one for one in outcome.root.rglob("*") if one.name.endswith((".open", ".salvage"))] == []


def continued(machine: Machine, number: int, root: Path) -> Machine:
    """Go on after SIGKILL, before call `number`: all that was written is seen, what was not synced is not safe."""
    nodes, _ = machine.states[number]
    root.mkdir()
    for path, data in walk(nodes, 0, "live", lambda live, safe: live, Path()):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    for folder in [path for path in machine.root.rglob("*") if path.is_dir()]:
        if folder.relative_to(machine.root) in folders(nodes, 0, Path()):
            (root / folder.relative_to(machine.root)).mkdir(parents=True, exist_ok=True)
    after = Machine(root)
    after.nodes = nodes
    return after


def folders(nodes: list[Node], number: int, at: Path) -> set[Path]:
    found = {at}
    for name, inner in nodes[number].live.items():
        if isinstance(nodes[inner].live, dict):
            found |= folders(nodes, inner, at / name)
    return found


def after_power_loss(machine: Machine, root: Path) -> Path:
    """Rebuild what is safe now."""
    for path, data in walk(machine.nodes, 0, "safe", lambda live, safe: safe, Path()):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    return root


@pytest.mark.parametrize("ring", [True, False])
def test_what_counts_after_sigkill_and_recovery_outlives_a_power_loss(tmp_path, ring):
    (tmp_path / "run").mkdir()
    machine = Machine(tmp_path / "run")
    with observe(machine.call):
        run_archive(machine)
    for number, (_, acknowledged) in enumerate(machine.states):
        after = continued(machine, number, tmp_path / str(number))
        with observe(after.call):
            if ring:
                recover_open(series_at(after.root), SESSION, acknowledged)
            recover_open(series_at(after.root))
        after.check()
        last = last_archived(series_at(after.root), SESSION)
        assert last >= acknowledged
        assert archived(after.root) == list(range(last + 1))
        assert archived(after_power_loss(after, tmp_path / f"{number}_lost")) == list(range(last + 1)), number


def test_text_logs_and_the_session_file(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    machine = Machine(run)
    done = [0, 0]
    machine.acknowledged = lambda: tuple(done)
    folder = Path("system/events/kis")
    with observe(machine.call):
        append_start(run, SessionStart(SESSION, "kis", 1, "h", "b", "v", "c", {"tick": 4}))
        done[1] = 1
        log = TextLog(run, run / folder, day_name(SEOUL))
        for number in range(8):
            log.append(b'{"event":%d,"text":"%s"}' % (2 * number, b"x" * 50), START_NS + number)
            log.append(b'{"event":%d}' % (2 * number + 1), START_NS + number + 15 * 3600 * NS * (number % 2))
            log.flush()
            done[0] = 2 * number + 2
    machine.snapshot()
    machine.check()
    for number in range(len(machine.states)):  # SIGKILL, recovery, power loss
        after = continued(machine, number, tmp_path / str(number))
        with observe(after.call):
            TextLog(after.root, after.root / folder, day_name(SEOUL)).recover()
        found = {path.name: path.read_bytes() for path in day_files(after.root / folder)}
        lost = after_power_loss(after, tmp_path / f"{number}_lost")
        assert {path.name: path.read_bytes() for path in day_files(lost / folder)} == found
    for outcome in outcomes(machine, tmp_path):
        lines, sessions = outcome.acknowledged
        log = TextLog(outcome.root, outcome.root / folder, day_name(SEOUL))
        log.recover()
        found = [line for path in day_files(outcome.root / folder) for _, line in text_lines(path)]
        events = sorted(orjson.loads(line)["event"] for line in found)
        assert events == list(range(len(events))), outcome.where
        assert len(events) >= lines, outcome.where
        assert len(read_sessions(outcome.root, "kis")) >= sessions, outcome.where
