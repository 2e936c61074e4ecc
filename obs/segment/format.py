"""The format of a segment, and the constants and frame functions that every reader and writer of one shares.

Place and name
    <root>/<dataset>/<provider>/<market>/<YYYYMMDD>/<HH_MM_SS>[_<n>].jsonl.zst, dataset "scalp" (ring tick) or "swing" (ring
    swing). Day and clock are local to the market, of the instant `ts` - 1 ns of the first record in it. A segment holds one
    session, one ring, one local day. A name that exists in any state (sealed, open, torn, named in the manifest) is never
    taken again: _2, _3, … follow. States by suffix:
        .open       growing; its whole frames are good, its tail may be torn after a crash
        (none)      sealed: synced, renamed, folder synced, one line in the folder's manifest.jsonl; it never changes
        .torn       bytes that recovery cut off an open one (.torn_2, … if there were any before)
        .salvage    a repair in progress; see recover

Bytes
    Independent zstd frames, one after the other, nothing between them. Each has its content size and content checksum, no
    dictionary, and holds whole lines: at most FRAME_BYTES and one line uncompressed, less if a flush ended it. So any prefix that
    ends with a whole frame is a file that zstdcat reads. Where a frame ends is told by its block headers alone.

Lines
    One JSON object each, UTF-8, ended by a newline. Records of one ring in seq order, without holes, except where a gap line says
    which sequences are missing: {"event_type":"gap_marker",…,"first_seq":…,"last_seq":…}. It stands in the same frame as the
    record behind the hole, and only a segment that ends with the session may end with it.

Damage
    A frame counts as read only if its header is one that we write, its blocks lie inside the file, it decodes to its content
    size, its checksum matches and it ends with a newline. Otherwise the bytes up to the next whole frame are one Damage.
    (About one flipped bit in 200 only spells the same content in another way. The lines are then right, and the hash in the
    manifest tells.)
    Bytes behind the last whole frame of an open file are torn, which is expected, not damage.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import orjson
import zstandard

from obs.record.jsonl import GAP_PREFIX, is_gap

SUFFIX: Final = ".jsonl.zst"
OPEN_SUFFIX: Final = ".open"
TORN_SUFFIX: Final = ".torn"
SALVAGE_SUFFIX: Final = ".salvage"
MANIFEST: Final = "manifest.jsonl"
QUARANTINE: Final = ("quarantine", "segments")  # below the root

FRAME_BYTES: Final = 256 << 10  # uncompressed; a frame ends with the first line that reaches it
FRAME_LIMIT: Final = 16 << 20  # a header that promises more is not one of ours
RINGS: Final = {"scalp": "tick", "swing": "swing"}  # dataset -> the ring whose records its segments hold
DATASETS: Final = {ring: dataset for dataset, ring in RINGS.items()}
SESSION_KEYS: Final = {"scalp": "session_id", "swing": "session"}

_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_CHECKSUM: Final = 0x04
_FOREIGN_BITS: Final = 0x1B  # dictionary id, reserved and unused bits of the frame header: always zero in ours
_SINGLE: Final = 0x20
_SIZE_BYTES: Final = {0: 1, 1: 2, 2: 4, 3: 8}


@dataclass(frozen=True)
class Series:
    """All segments of one provider, market and dataset below a data directory."""

    root: Path
    dataset: str  # "scalp" or "swing"
    provider: str
    market: str

    @property
    def ring(self) -> str:
        return RINGS[self.dataset]

    @property
    def folder(self) -> Path:
        return self.root / self.dataset / self.provider / self.market

    def day_folders(self) -> list[Path]:
        """Return the folders of all days on disk, oldest first."""
        try:
            return sorted(path for path in self.folder.iterdir() if path.name.isdigit() and len(path.name) == 8)
        except FileNotFoundError:
            return []

    def relative(self, path: Path) -> str:
        """Return the path as manifests and raw_ref write it: below the root, without .open."""
        return str(path.relative_to(self.root)).removesuffix(OPEN_SUFFIX)


@dataclass(frozen=True)
class Frame:
    """One whole frame: its place in the file and its lines, without newlines."""

    offset: int
    end: int
    lines: list[bytes]


@dataclass(frozen=True)
class Damage:
    """Bytes that are no whole frame. `torn`: nothing whole follows them."""

    offset: int
    end: int
    reason: str
    torn: bool = False


@cache
def compressor(level: int) -> zstandard.ZstdCompressor:
    """Return the compressor of a level; it makes frames with content size and checksum. Safety: one thread."""
    return zstandard.ZstdCompressor(level=level, write_checksum=True, write_content_size=True)


_decompressor: Final = zstandard.ZstdDecompressor()


def frame_end(data: bytes | memoryview, at: int) -> tuple[int, str]:
    """Find where the frame at `at` ends by walking its block headers; (-1, reason) if there is no whole one."""
    size = len(data)
    if size - at < 5:
        return -1, "short" if bytes(data[at : at + 4]) == _MAGIC[: min(4, size - at)] else "magic"
    if bytes(data[at : at + 4]) != _MAGIC:
        return -1, "magic"
    head = data[at + 4]
    if head & _FOREIGN_BITS or not head & _CHECKSUM or not (head & _SINGLE or head >> 6):
        return -1, "header"
    window = 0 if head & _SINGLE else 1
    size_bytes = _SIZE_BYTES[head >> 6]
    start = at + 5 + window
    promised = int.from_bytes(data[start : start + size_bytes], "little") + (256 if head >> 6 == 1 else 0)
    if promised > FRAME_LIMIT:
        return -1, "header"
    place = start + size_bytes
    last = False
    while not last:
        if place + 3 > size:
            return -1, "short"
        block = int.from_bytes(data[place : place + 3], "little")
        last, kind = bool(block & 1), block >> 1 & 3
        if kind == 3:
            return -1, "block"
        place += 3 + (1 if kind == 1 else block >> 3)
    return (place + 4, "") if place + 4 <= size else (-1, "short")


def read_frame(data: bytes | memoryview, at: int) -> tuple[int, bytes, str]:
    """Read the frame at `at`: (end, raw bytes, ""), or (-1, b"", reason)."""
    end, reason = frame_end(data, at)
    if end < 0:
        return -1, b"", reason
    try:
        raw = _decompressor.decompress(data[at:end])
    except (zstandard.ZstdError, MemoryError) as error:
        return -1, b"", f"decode: {error}"
    if not raw.endswith(b"\n"):
        return -1, b"", "not whole lines"
    return end, raw, ""


def pieces(data: bytes, start: int = 0) -> Iterator[Frame | Damage]:
    """Read all of `data` from `start`, in order: every whole frame, and every stretch that is none.

    After damage it goes on at the next place where a whole frame reads with its checksum; a frame is never read in part.
    """
    at, size = start, len(data)
    while at < size:
        end, raw, reason = read_frame(data, at)
        if end >= 0:
            yield Frame(at, end, raw[:-1].split(b"\n"))
            at = end
            continue
        following = next_frame(data, at + 1)
        yield Damage(at, following, reason, torn=following == size)
        at = following


def next_frame(data: bytes, start: int) -> int:
    """Return the offset of the first whole frame at or after `start`; len(data) if there is none."""
    at = data.find(_MAGIC, start)
    while at >= 0:
        if read_frame(data, at)[0] >= 0:
            return at
        at = data.find(_MAGIC, at + 1)
    return len(data)


def whole_number(value: Any) -> int:
    """Return `value` if it is a JSON integer. Raises TypeError."""
    if type(value) is not int:
        raise TypeError(f"not a whole number: {value!r}")
    return value


def line_span(line: bytes) -> tuple[int, int]:
    """Return the first and last seq that a line stands for: a record's own, or those a gap line says are missing.

    Raises JSONDecodeError, KeyError or TypeError if it is neither.
    """
    value: dict[str, Any] = orjson.loads(line)
    if is_gap(line):
        return whole_number(value["first_seq"]), whole_number(value["last_seq"])
    seq = whole_number(value["seq"])
    return seq, seq


def line_ns(line: bytes) -> int:
    """Return the time of a record, or the end of a gap. Raises as `line_span`."""
    value: dict[str, Any] = orjson.loads(line)
    return whole_number(value["gap_end_ns" if is_gap(line) else "ts_ns"])


def frame_span(lines: list[bytes]) -> tuple[int, int]:
    """Return the first and last seq that the lines of a frame stand for; they are in order."""
    return line_span(lines[0])[0], line_span(lines[-1])[1]


def session_of(line: bytes, dataset: str) -> str:
    """Return the session id of a record or gap line."""
    value: dict[str, Any] = orjson.loads(line)
    return str(value["session_id"] if is_gap(line) else value[SESSION_KEYS[dataset]])


def gap_count(lines: list[bytes]) -> int:
    """Return how many of the lines are gap lines."""
    return sum(line.startswith(GAP_PREFIX) for line in lines)


def free_path(folder: Path, clock: str) -> Path:
    """Return the sealed path for a new segment opened at `clock` (HH_MM_SS): a name not taken in any state."""
    try:
        names = {path.name for path in folder.iterdir()}
    except FileNotFoundError:
        return folder / f"{clock}{SUFFIX}"
    manifest = (folder / MANIFEST).read_bytes() if MANIFEST in names else b""
    number = 1
    while True:
        name = f"{clock}{SUFFIX}" if number == 1 else f"{clock}_{number}{SUFFIX}"
        if not any(taken == name or taken.startswith(name + ".") for taken in names) and f'/{name}"'.encode() not in manifest:
            return folder / name
        number += 1


def free_suffixed(path: Path, suffix: str) -> Path:
    """Return path + suffix, or path + suffix + _2, _3, …: the first that does not exist."""
    number = 1
    while True:
        candidate = path.with_name(path.name + suffix + (f"_{number}" if number > 1 else ""))
        if not candidate.exists():
            return candidate
        number += 1
