"""Hypothesis strategies that know what they hurt: fields, numbers, keys and lines of valid inputs, or the edits of a binary one."""

from __future__ import annotations

import re

from hypothesis import strategies as st

_TOKEN = re.compile(rb'[^\^|,:{}\[\]"\n =]+')
_LINE = re.compile(rb"[^\n]*\n?")
# What does not belong where a number, a text or a time is: of each kind that a parser has been seen to take.
ODD = b"nan NaN inf -Infinity 1_000 1e5 0x10 --1 1.2.3 +5 1e400 -1 0 null true [] {} [1] ^ | |^ , 20261399 256199".split()
ODD += [b"005930", b"KRW-BTC", b"1", b"0", b"-5", b"9223372036854775808", b"18446744073709551616", b"-9223372036854775809"]
ODD += [b"", b" 1", b"1 ", b"9" * 400, b"9" * 20, b"\0", b'"', b'"7"', b'{"a":1}', b"\n", b"\xff"]
ODD += ["삼성".encode("cp949"), "삼성".encode(), "١٢".encode()]
WAYS = ("cut", "flip", "replace", "remove", "remove_with_mark", "repeat", "insert", "swap_lines", "drop_line", "splice", "wrap")


@st.composite
def hurt_text(draw: st.DrawFn, corpus: list[bytes], ways: tuple[str, ...] = WAYS) -> bytes:
    """Return one of `corpus` with up to four places hurt: each in its structure (a field, a mark, a line) or in its bytes.

    Ways of frames alone: "encrypt" sets the flag of an encrypted KIS frame, "count" its number of records.
    """
    data = bytearray(draw(st.sampled_from(corpus)))
    for _ in range(draw(st.integers(0, 4))):
        if not data:
            break
        start, stop = draw(st.sampled_from([match.span() for match in _TOKEN.finditer(data)] or [(0, len(data))]))
        at = draw(st.integers(0, len(data) - 1))
        match draw(st.sampled_from(ways)):
            case "cut":
                del data[at:]
            case "flip":
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "replace":
                data[start:stop] = draw(st.sampled_from(ODD) | st.binary(max_size=12))
            case "remove":
                del data[start:stop]
            case "remove_with_mark":
                del data[start : stop + 1]
            case "repeat":
                data[start:start] = data[start : stop + 1]
            case "insert":
                data[at:at] = draw(st.sampled_from(ODD) | st.binary(max_size=12))
            case "swap_lines":
                lines = _LINE.findall(bytes(data))
                data[:] = b"".join(draw(st.permutations(lines[:40]))) + b"".join(lines[40:])
            case "drop_line":
                lines = _LINE.findall(bytes(data))
                del lines[draw(st.integers(0, len(lines) - 1))]
                data[:] = b"".join(lines)
            case "splice":
                other = draw(st.sampled_from(corpus))
                data[at:] = other[draw(st.integers(0, len(other))) :]
            case "wrap":
                data[:] = b"[" + data + b"," + data + b"]"
            case "encrypt":
                data[:1] = b"1"
            case "count":
                data[11:14] = draw(st.sampled_from([b"000", b"001", b"002", b"005", b"999", b"-01", b"1_0", b"+02"]))
    return bytes(data)


@st.composite
def hurt_bytes(draw: st.DrawFn, corpus: list[bytes]) -> bytes:
    """Return what `fuzz.take.edited` reads as a few edits, after one of `corpus` or alone."""
    head = draw(st.sampled_from(corpus) | st.binary(min_size=1, max_size=1))
    edit = st.builds(
        lambda way, at, more: bytes([way]) + at.to_bytes(2, "little") + more,
        st.integers(0, 4), st.integers(0, 65535) | st.integers(0, 640), st.binary(max_size=12),
    )  # fmt: skip
    return head + b"".join(draw(st.lists(edit, max_size=4)))
