"""Joining fragments, keeping the head of what is too long, and what may be shown of a request."""

from __future__ import annotations

import hashlib
import pickle
from random import Random

import pytest

from obs.errors import ConfigError
from obs.wire import ConnectOptions, Excerpt
from obs.wire.frames import KEEP_BYTES, Head, Join
from obs.wire.mask import masked_url, scrub, secrets_of


def cut(data: bytes, rng: Random) -> list[bytes]:
    places = sorted(rng.randrange(len(data) + 1) for _ in range(rng.randrange(5)))
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]


@pytest.mark.parametrize("seed", range(20))
def test_join_gives_back_what_was_cut(seed: int) -> None:
    rng = Random(seed)
    join = Join(1000)
    for _ in range(20):
        data = rng.randbytes(rng.randrange(1001))
        parts = cut(data, rng)
        for part in parts[:-1]:
            assert join.add(memoryview(part), False) is None
            assert join.open
        assert join.add(memoryview(parts[-1]), True) == data
        assert not join.open
        assert join.held_bytes == 0


@pytest.mark.parametrize(("bound", "sizes"), [(1000, (1001,)), (1000, (999, 1, 1)), (100, (60_000, 60_000, 60_000)), (10, (11, 0))])
def test_too_long_a_message_leaves_head_length_and_hash(bound: int, sizes: tuple[int, ...]) -> None:
    join, data = Join(bound), Random(1).randbytes(sum(sizes))
    at = 0
    for place, size in enumerate(sizes):
        message = join.add(memoryview(data)[at : at + size], place == len(sizes) - 1)
        at += size
    assert isinstance(message, Excerpt)
    assert bytes(message) == data[:KEEP_BYTES]
    assert (message.total_bytes, message.sha256) == (len(data), hashlib.sha256(data).digest())
    assert join.add(memoryview(b"next"), True) == b"next", "the next message is not hurt"


def test_an_excerpt_survives_pickling() -> None:
    head = Head()
    head.add(b"abc" * 40_000)
    excerpt = head.excerpt()
    again = pickle.loads(pickle.dumps(excerpt))
    assert (again, again.total_bytes, again.sha256) == (excerpt, 120_000, excerpt.sha256)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("wss://h.example:9/a/b?key=TOPSECRET&x=1", "wss://h.example:9/a/b?***"),
        ("wss://user:TOPSECRET@h.example/a", "wss://h.example/a"),
        ("ws://[::1]:80/#TOPSECRET", "ws://[::1]:80/"),
        ("wss://h.example:TOPSECRET/", "***"),
    ],
)
def test_masked_url(url: str, shown: str) -> None:
    assert masked_url(url) == shown


def test_scrub_hides_header_and_query_values() -> None:
    secrets = secrets_of("wss://h/a?appkey=KEY12345&n=1", {"Authorization": "Bearer abc.def.ghi", "User-Agent": "obs tests"})
    text = scrub("KEY12345 abc.def.ghi obs tests n=1 Bearer abc.def.ghi", secrets)
    assert "KEY12345" not in text
    assert "abc.def" not in text
    assert "obs tests n=1" in text


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"url": "https://h/"}, "expected ws://"),
        ({"url": "ws:///path"}, "expected ws://"),
        ({"url": "wss://me:TOPSECRET@h/"}, "user and password"),
        ({"url": "ws://h/", "headers": {"oRiGin": "TOPSECRET"}}, "Origin is never sent"),
        ({"url": "ws://h/", "headers": {"X-Key": "TOPSECRET\r\nX: y"}}, "control character"),
        ({"url": "ws://h/", "user_agent": "a\nb"}, "control character"),
        ({"url": "ws://h/", "ping_every_s": 0}, "ping_every_s=0"),
        ({"url": "ws://h/", "connect_timeout_s": 0}, "connect_timeout_s=0"),
        ({"url": "ws://h/", "max_frame_bytes": 10}, "max_frame_bytes=10"),
        ({"url": "ws://h:port/"}, "expected ws://"),
    ],
)
def test_wrong_options_are_named_without_secrets(options: dict[str, object], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        ConnectOptions(**options)  # type: ignore[arg-type]
    assert "TOPSECRET" not in str(caught.value)


def test_options_show_no_secret() -> None:
    options = ConnectOptions("wss://h/a?key=TOPSECRET", {"Authorization": "TOPSECRET"})
    assert "TOPSECRET" not in repr(options) + str(options)
    assert options.request_headers() == {"User-Agent": "obs", "Authorization": "TOPSECRET"}
    assert ConnectOptions("ws://h/", {"user-agent": "mine"}).request_headers() == {"user-agent": "mine"}
