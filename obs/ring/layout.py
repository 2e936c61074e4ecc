"""The bytes of a ring file: a header page, then `capacity` cells of one record each.

| offset | bytes | what |
|---|---|---|
| 0 | 8 | MAGIC |
| 8 | 4 + 4 | LAYOUT_VERSION, item size |
| 16 | 8 | capacity, a power of two |
| 24 | 16 | fingerprint of the dtype |
| 64 | 64 | session id |
| 128 | 32 | ring name |
| 192 | 8 | creation time, UTC ns |
| 256 | 8 | claimed: sequences below it may be written or being written (producer) |
| 320 | 8 | published: sequences below it may be read (producer) |
| 512 + 128 k | 8 + 8 | cursor, durable of consumer k (that consumer): sequences below them are read, fsynced or committed |
| 4096 | capacity x item size | cells; sequence s lives in cell s % capacity |

All numbers are little-endian and count from 0, so `published` is also the number of records published. Words that
different processes write lie in different cache lines.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Final

import numpy as np

from obs.errors import SchemaMismatch
from obs.record.schema import fingerprint
from obs.shm.block import Block, attach, create

MAGIC: Final = b"OBSRING1"
LAYOUT_VERSION: Final = 1
HEADER_BYTES: Final = 4096
_HEAD: Final = struct.Struct("<8sIIQ16s24x64s32s32xQ")
CLAIMED: Final = 256 // 8
PUBLISHED: Final = 320 // 8
_CONSUMER_AT: Final = 512
_CONSUMER_STEP: Final = 128
CONSUMERS: Final = ("archive", "load")  # index = place in the header


def consumer_word(name: str) -> int:
    """Return the index of the consumer's cursor word; its durable word is the next."""
    return (_CONSUMER_AT + CONSUMERS.index(name) * _CONSUMER_STEP) // 8


class Ring:
    """A mapped ring: `words` of the header, and `mapped`, header and cells. Shared by the Producer and Consumer of a process."""

    def __init__(self, block: Block, dtype: np.dtype) -> None:
        self.block = block
        self.dtype = dtype
        _, _, _, capacity, _, session, name, self.created_ns = _HEAD.unpack_from(block.data)
        self.capacity: int = capacity
        self.session_id: str = session.rstrip(b"\0").decode()
        self.name: str = name.rstrip(b"\0").decode()
        self.words = block.words
        self.mapped = block.mapped

    @property
    def path(self) -> Path:
        return self.block.path

    @property
    def published(self) -> int:
        """Number of records published so far = the next sequence."""
        return self.words[PUBLISHED]

    @property
    def claimed(self) -> int:
        return self.words[CLAIMED]

    def cursor(self, consumer: str) -> int:
        return self.words[consumer_word(consumer)]

    def durable(self, consumer: str) -> int:
        """Sequences below it are fsynced or committed by that consumer. A hint: after a restart the disk is the truth."""
        return self.words[consumer_word(consumer) + 1]

    @property
    def oldest(self) -> int:
        """The oldest sequence that cannot have been overwritten."""
        return max(0, self.claimed - self.capacity)

    def close(self) -> None:
        self.block.close()


def ring_bytes(dtype: np.dtype, capacity: int) -> int:
    return HEADER_BYTES + capacity * dtype.itemsize


def create_ring(path: Path, dtype: np.dtype, capacity: int, session_id: str, name: str, created_ns: int) -> Ring:
    """Make an empty ring. Raises ShmFull; ValueError for a capacity or a name that the header cannot hold."""
    if capacity < 2 or capacity & (capacity - 1):
        raise ValueError(f"capacity is not a power of two: capacity={capacity}")
    if not (session_id + name).isascii() or len(session_id) > 64 or len(name) > 32:
        raise ValueError(f"not ASCII, or too long for a ring header: session={session_id} name={name}")
    head = _HEAD.pack(
        MAGIC, LAYOUT_VERSION, dtype.itemsize, capacity, fingerprint(dtype), session_id.encode(), name.encode(), created_ns
    )

    def fill(data: memoryview) -> None:
        data[: len(head)] = head

    return Ring(create(path, ring_bytes(dtype, capacity), fill), dtype)


def attach_ring(path: Path, dtype: np.dtype, session_id: str | None = None) -> Ring:
    """Map an existing ring.

    Raises FileNotFoundError; SchemaMismatch, naming what differs, if it is foreign, older, truncated or of another
    session: it must be set aside, never read.
    """
    try:
        block = attach(path)
    except ValueError as error:
        raise SchemaMismatch("ring file is empty", path=str(path)) from error
    problem = ""
    if block.size < HEADER_BYTES:
        problem = f"shorter than a header: size={block.size}"
    else:
        magic, version, itemsize, capacity, print_, session, name, _ = _HEAD.unpack_from(block.data)
        if magic != MAGIC:
            problem = f"magic={magic!r}, expected {MAGIC!r}"
        elif version != LAYOUT_VERSION:
            problem = f"layout version={version}, expected {LAYOUT_VERSION}"
        elif itemsize != dtype.itemsize or print_ != fingerprint(dtype):
            problem = f"dtype fingerprint={print_.hex()} itemsize={itemsize}, expected {fingerprint(dtype).hex()} {dtype.itemsize}"
        elif capacity < 2 or capacity & (capacity - 1) or block.size != ring_bytes(dtype, capacity):
            problem = f"size={block.size} capacity={capacity}, expected {HEADER_BYTES} + capacity x {dtype.itemsize}"
        elif not (session.isascii() and name.isascii()):
            problem = f"session={session!r} name={name!r}, expected ASCII"
        elif session_id is not None and session.rstrip(b"\0") != session_id.encode():
            problem = f"session={session.rstrip(bytes(1))!r}, expected {session_id!r}"
        elif not (block.words[PUBLISHED] <= block.words[CLAIMED] <= block.words[PUBLISHED] + capacity):
            problem = f"published={block.words[PUBLISHED]} claimed={block.words[CLAIMED]}"
    if problem:
        block.close()
        raise SchemaMismatch("not a ring of ours", path=str(path), found=problem)
    return Ring(block, dtype)
