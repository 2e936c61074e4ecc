"""Brings what a crash left to a whole-frame end, and seals it. Run before any writer of the series is made.

An open segment is cut behind its last whole frame; with `keep_seq` also before the first frame that begins behind it, because
such a frame may never have reached the disk and the ring still holds its records. What is cut off is kept beside, as
<name>.torn. The rest is fsynced, renamed, and gets its manifest line, which from then on says that it counts as archived.

Damage elsewhere (whole frames follow it, or the file was sealed already) is not expected. The frames that read are copied to a
new file, with a gap line (disk_error) for the sequences that are missing in between; the damaged original is moved unchanged to
quarantine/segments with a report beside it, and the copy takes its name. Nothing is ever deleted but empty files and unfinished
copies.

Every step can be repeated: SIGKILL or power loss at any call, then recovery again, ends in the same state.
Order of a repair: copy (.salvage) durable, report durable, original moved, copy renamed, manifest line. A .salvage beside its
original is unfinished and thrown away; one without its original is finished and takes its name.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson

from obs.record.events import SCOPE_OF_RING, gap_line, gap_payload
from obs.segment.disk import Disk, Progress, silent
from obs.segment.format import (
    OPEN_SUFFIX,
    QUARANTINE,
    SALVAGE_SUFFIX,
    SUFFIX,
    TORN_SUFFIX,
    Damage,
    Frame,
    Series,
    compressor,
    frame_span,
    free_suffixed,
    line_ns,
    pieces,
    session_of,
)
from obs.segment.manifest import append_manifest, describe, read_manifest, tally_of
from obs.segment.reader import find

_LEVEL: Final = 1


@dataclass
class Recovered:
    """What was done to one file. `path`: its sealed name, None if nothing of it was whole."""

    path: Path | None
    session_id: str
    ring: str
    first_seq: int
    last_seq: int
    torn_bytes: int = 0
    torn_path: Path | None = None
    quarantined: Path | None = None  # the damaged original
    damages: list[Damage] = field(default_factory=list)
    gaps: list[bytes] = field(default_factory=list)  # gap lines that were put into the segment; copy them to system/events


def recover_open(
    series: Series, session_id: str | None = None, keep_seq: int | None = None, progress: Progress = silent
) -> list[Recovered]:
    """Seal every open segment of one session (None: of all), finish begun repairs, rebuild missing manifest lines.

    `keep_seq`: the last seq that may not be taken from the ring again, so the larger of what is known to be fsynced and the
    seq before the oldest that the ring still safely holds; None: the ring is gone, keep every whole frame. Only with a
    session_id. Returns what was done, in the order of the files; empty if all was well. Raises DiskTrouble; then run it again.
    """
    assert keep_seq is None or session_id is not None, "keep_seq belongs to one session"
    disk = Disk(progress)
    done: list[Recovered] = []
    for folder in series.day_folders():
        disk.make_folder(folder, series.root)  # it exists; its name may not be durable
        for path in sorted(folder.glob(f"*{SUFFIX}{SALVAGE_SUFFIX}")):
            _finish_repair(disk, path)
        known = read_manifest(folder)
        for path in sorted(folder.iterdir()):
            is_open = path.name.endswith(SUFFIX + OPEN_SUFFIX)
            if is_open or (path.name.endswith(SUFFIX) and path.name not in known):
                data = path.read_bytes()
                parts = _readable(data, series)
                session = next((session for session, piece in parts if isinstance(piece, Frame)), "")
                if session_id in (None, session):
                    one = _recover_one(disk, series, path, data, [piece for _, piece in parts], keep_seq if is_open else None)
                    done.append(one)
    return done


def _readable(data: bytes, series: Series) -> list[tuple[str, Frame | Damage]]:
    """Read the pieces with their session; a frame whose lines are not records of the series is damage."""
    found: list[tuple[str, Frame | Damage]] = []
    for piece in pieces(data):
        session = ""
        one: Frame | Damage = piece
        if isinstance(piece, Frame):
            try:
                session = session_of(piece.lines[0], series.dataset)
                tally_of(piece.lines)
                for line in (piece.lines[0], piece.lines[-1]):
                    line_ns(line)
            except (orjson.JSONDecodeError, KeyError, TypeError):
                one = Damage(piece.offset, piece.end, "a line is no record")
        found.append((session, one))
    return found


def _recover_one(disk: Disk, series: Series, path: Path, data: bytes, parts: list[Frame | Damage], keep_seq: int | None) -> Recovered:
    is_open = path.name.endswith(OPEN_SUFFIX)
    cut = len(data)
    for piece in parts:
        if isinstance(piece, Damage) or (keep_seq is not None and frame_span(piece.lines)[0] > keep_seq):
            cut = piece.offset
            break
    kept_behind = [
        piece for piece in parts if isinstance(piece, Frame) and piece.offset >= cut
        and (keep_seq is None or frame_span(piece.lines)[0] <= keep_seq)
    ]  # fmt: skip
    if (is_open and not kept_behind) or (not is_open and cut == len(data)):
        return _end(disk, series, path, data, cut)
    return _repair(disk, series, path, data, parts, keep_seq)


def _end(disk: Disk, series: Series, path: Path, data: bytes, cut: int) -> Recovered:
    """Cut a file at a frame's end, keep what is cut off, and seal it."""
    sealed_path = path.with_name(path.name.removesuffix(OPEN_SUFFIX))
    done = Recovered(None, "", series.ring, -1, -1, torn_bytes=len(data) - cut)
    if not data:
        disk.unlink(path)
        return done
    if cut < len(data):
        done.torn_path = free_suffixed(sealed_path, TORN_SUFFIX)
        if cut == 0:
            disk.fsync_path(path)
            disk.rename_sealed(path, done.torn_path)
            return done
        disk.write_new(done.torn_path, data[cut:])
        disk.cut(path, cut)
    else:
        disk.fsync_path(path)  # Durable: its writer may have died before its own fsync
    return _seal(disk, series, path, sealed_path, done)


def _seal(disk: Disk, series: Series, path: Path, sealed_path: Path, done: Recovered) -> Recovered:
    if path != sealed_path:
        disk.rename_sealed(path, sealed_path)
    else:
        disk.fsync_folder(path.parent)
    sealed, _ = describe(series, sealed_path)
    assert sealed is not None, sealed_path
    append_manifest(disk, sealed_path.parent, sealed)
    done.path, done.session_id = sealed_path, sealed.session_id
    done.first_seq, done.last_seq = sealed.tally.first_seq, sealed.tally.last_seq
    return done


def _repair(disk: Disk, series: Series, path: Path, data: bytes, parts: list[Frame | Damage], keep_seq: int | None) -> Recovered:
    """Copy the frames that read, set the original aside, and seal the copy under its name."""
    sealed_path = path.with_name(path.name.removesuffix(OPEN_SUFFIX))
    done = Recovered(None, "", series.ring, -1, -1, damages=[piece for piece in parts if isinstance(piece, Damage)])
    copy = sealed_path.with_name(sealed_path.name + SALVAGE_SUFFIX)
    whole, done.gaps = _salvage(series, data, parts, keep_seq)
    if whole:
        disk.write_new(copy, whole)
    folder = series.root.joinpath(*QUARANTINE)
    disk.make_folder(folder, series.root)
    aside = free_suffixed(folder / "_".join(path.relative_to(series.root).parts), "")
    report: dict[str, Any] = {
        "path": str(path.relative_to(series.root)), "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(),
        "damages": [{"offset": one.offset, "bytes": one.end - one.offset, "reason": one.reason} for one in done.damages],
        "gaps": [orjson.loads(line) for line in done.gaps], "copy": series.relative(sealed_path) if whole else None,
    }  # fmt: skip
    disk.write_new(free_suffixed(aside, ".json"), orjson.dumps(report, option=orjson.OPT_INDENT_2) + b"\n")
    disk.rename_sealed(path, aside)
    done.quarantined = aside
    return _seal(disk, series, copy, sealed_path, done) if whole else done


def _salvage(series: Series, data: bytes, parts: list[Frame | Damage], keep_seq: int | None) -> tuple[bytes, list[bytes]]:
    """Return the bytes of a file with every frame that reads, and the gap lines put in for what is missing between them."""
    out: list[bytes] = []
    gaps: list[bytes] = []
    last_seq, last_ns = -1, 0
    for piece in parts:
        if isinstance(piece, Damage):
            continue
        low, high = frame_span(piece.lines)
        if keep_seq is not None and low > keep_seq:
            break  # the ring has it
        session = session_of(piece.lines[0], series.dataset)
        if not out:
            ends = [segment.last_seq for segment in find(series, session) if segment.last_seq is not None]
            last_seq = max((seq for seq in ends if seq < low), default=-1)
        first_ns, next_ns = (line_ns(line) for line in (piece.lines[0], piece.lines[-1]))
        if low == last_seq + 1:
            out.append(data[piece.offset : piece.end])
        else:
            payload = gap_payload(
                start_ns=last_ns or first_ns, end_ns=first_ns, scope=SCOPE_OF_RING[series.ring], reason="disk_error",
                session_id=session, provider=series.provider, ring=series.ring, sink="archive", first_seq=last_seq + 1,
                last_seq=low - 1, lost=low - 1 - last_seq,
            )  # fmt: skip
            gaps.append(gap_line(payload))
            out.append(compressor(_LEVEL).compress(b"\n".join([gaps[-1], *piece.lines]) + b"\n"))
        last_seq, last_ns = high, next_ns
    return b"".join(out), gaps


def _finish_repair(disk: Disk, copy: Path) -> None:
    """End a repair that was interrupted; what remains to do is done as for any sealed file without a manifest line."""
    sealed_path = copy.with_name(copy.name.removesuffix(SALVAGE_SUFFIX))
    if sealed_path.exists() or sealed_path.with_name(sealed_path.name + OPEN_SUFFIX).exists():
        disk.unlink(copy)
    else:
        disk.rename_sealed(copy, sealed_path)
