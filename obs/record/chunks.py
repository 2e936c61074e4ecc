"""What cannot be read, cut into CHUNK rows: how it travels to the quarantine file."""

from __future__ import annotations

import hashlib

import numpy as np

from obs.record.schema import CHUNK, CHUNK_DATA_BYTES, CHUNK_KEEP_BYTES


def message_chunks(
    data: bytes, recv_ns: int, reason: str, *, whole: bool, total_bytes: int | None = None, sha256: bytes | None = None
) -> np.ndarray:
    """Cut an unreadable message or span into CHUNK rows, shape (parts,), ready to publish together (the ring sets seq).

    `whole`: nothing in the message was readable. At most CHUNK_KEEP_BYTES are kept; length and hash are of all of it. Where
    `data` is only the head of something longer, `total_bytes` and `sha256` (32 bytes) are those of the whole.
    """
    kept = data[:CHUNK_KEEP_BYTES]
    parts = max(1, -(-len(kept) // CHUNK_DATA_BYTES))
    rows = np.zeros(parts, CHUNK)
    rows["recv_ns"], rows["parts"], rows["part"] = recv_ns, parts, np.arange(parts)
    rows["total_bytes"], rows["whole"] = len(data) if total_bytes is None else total_bytes, whole
    rows["reason"] = reason.encode("ascii", "replace")
    rows["sha256"] = np.void(hashlib.sha256(data).digest() if sha256 is None else sha256)
    for part in range(parts):
        piece = kept[part * CHUNK_DATA_BYTES : (part + 1) * CHUNK_DATA_BYTES]
        rows["data_bytes"][part] = len(piece)
        rows["data"][part] = np.void(piece.ljust(CHUNK_DATA_BYTES, b"\0"))
    return rows
