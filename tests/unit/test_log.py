"""The log of a process: lines, masking, a reader that is slow or gone, storms, several threads."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

from obs import log as log_module
from obs.log import CAPACITY_LINES, LEVELS, LIMIT_LINES, LIMIT_S, Log, capture_standard


class Hands:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.ns = 1_769_041_865_500_000_000

    def wall_ns(self) -> int:
        return self.ns

    def mono_ns(self) -> int:
        return self.ns


class Pipe:
    """A pipe whose reading end the test reads when it likes."""

    def __init__(self) -> None:
        self.read_end, self.write_end = os.pipe()

    def lines(self) -> list[dict[str, Any]]:
        os.close(self.write_end)
        with os.fdopen(self.read_end, "rb") as file:
            return [json.loads(line) for line in file.read().splitlines()]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    for descriptor in (made.read_end, made.write_end):
        with suppress(OSError):
            os.close(descriptor)


def test_a_line_says_when_who_and_what(pipe: Pipe) -> None:
    log = Log("feed", "kis", descriptor=pipe.write_end, time=Hands())
    log.debug("hidden")
    log.info("connected", url="ws://x", attempt_no=np.int64(3), parts={1: b"x"})
    log.warning("slow", seconds=float("nan"))
    assert log.close()
    first, second = pipe.lines()
    assert first == {
        "ts": "2026-01-22T00:31:05.500Z", "level": "info", "role": "feed", "provider": "kis", "pid": os.getpid(),
        "event": "connected", "url": "ws://x", "attempt_no": 3, "parts": {"1": "b'x'"},
    }  # fmt: skip
    assert (second["level"], second["seconds"]) == ("warning", None)


def test_a_fact_that_cannot_be_written_costs_no_line(pipe: Pipe) -> None:
    class Odd:
        def __str__(self) -> str:
            raise TypeError("no text")

        __repr__ = object.__repr__

    log = Log("feed", descriptor=pipe.write_end)
    log.error("odd", thing=Odd())
    log.error("lone", text="\ud800")
    assert log.close()
    assert [line["event"] for line in pipe.lines()] == ["odd", "lone"]


def test_errors_carry_their_trace(pipe: Pipe) -> None:
    journal = Log("feed", descriptor=pipe.write_end)
    try:
        raise ValueError("bad value=7")
    except ValueError as error:
        journal.exception("crashed", error, code=3)
    assert journal.close()
    (line,) = pipe.lines()
    assert (line["code"], line["level"]) == (3, "error")
    assert (line["error"], line["text"]) == ("ValueError", "bad value=7")
    assert "ValueError: bad value=7" in line["trace"]
    assert "test_errors_carry_their_trace" in line["trace"]


def test_secrets_are_masked_in_every_spelling(pipe: Pipe) -> None:
    log = Log("feed", descriptor=pipe.write_end)
    log.mask('pass"word/+1', "pass", "longer-key-0001", "key-0001", "abc")
    log.info("x", plain='pass"word/+1', url="http://h/?k=pass%22word%2F%2B1", nested={"k": ["longer-key-0001"]}, short="abc pass")
    assert log.close()
    (line,) = pipe.lines()
    assert (line["plain"], line["url"], line["nested"]) == ("***", "http://h/?k=***", {"k": ["***"]})
    assert line["short"] == "abc pass"  # too short to be told from words


def test_a_reader_that_stops_costs_lines_not_time(pipe: Pipe) -> None:
    log = Log("feed", descriptor=pipe.write_end)
    filler = "x" * 4000
    sent = CAPACITY_LINES + 500
    slowest = 0.0
    for number in range(sent):
        started = time.perf_counter()
        log.info(f"e{number}", filler=filler)
        slowest = max(slowest, time.perf_counter() - started)
    assert slowest < 1
    assert log.dropped > 0
    dropped = log.dropped
    received: list[dict[str, Any]] = []
    reader = threading.Thread(target=lambda: received.extend(pipe.lines()))
    copy = os.dup(pipe.write_end)  # the reader closes the test's own
    log._writer._descriptor = copy
    reader.start()
    assert log.close(20)
    os.close(copy)
    reader.join()
    told = [line for line in received if line["event"] == "log_lines_dropped"]
    assert sum(line["lines"] for line in told) == dropped
    assert len(received) - len(told) == sent - dropped  # received + dropped = logged


def test_a_reader_that_has_gone_is_counted(pipe: Pipe) -> None:
    os.close(pipe.read_end)
    log = Log("feed", descriptor=pipe.write_end)
    for number in range(3):
        log.info(f"e{number}")
    assert log.close()
    assert log.dropped >= 3


def test_a_descriptor_that_does_not_block_is_waited_for(pipe: Pipe) -> None:
    os.set_blocking(pipe.write_end, False)
    log = Log("feed", descriptor=pipe.write_end)
    for number in range(100):
        log.info(f"e{number}", filler="y" * 3000)  # more than a pipe holds
    received: list[dict[str, Any]] = []
    with os.fdopen(os.dup(pipe.read_end), "rb") as file:
        for line in file:
            received.append(json.loads(line))
            if len(received) == 100:
                break
    assert log.close()
    assert [line["event"] for line in received] == [f"e{number}" for number in range(100)]


def test_a_storm_is_held_back_and_told(pipe: Pipe) -> None:
    hands = Hands()
    log = Log("feed", descriptor=pipe.write_end, time=hands)
    for _ in range(LIMIT_LINES + 7):
        log.warning("storm")
    log.info("other")
    hands.ns += LIMIT_S * 10**9
    log.warning("storm")
    for _ in range(LIMIT_LINES + 4):
        log.warning("storm")
    assert log.close()
    lines = pipe.lines()
    events = [line["event"] for line in lines]
    assert events.count("storm") == 2 * LIMIT_LINES
    assert events.count("other") == 1
    assert sum(line["lines"] for line in lines if line["event"] == "log_lines_suppressed") == 7 + 5


def test_a_storm_that_ended_is_told_without_another_line(pipe: Pipe) -> None:
    hands = Hands()
    log = Log("feed", descriptor=pipe.write_end, time=hands)
    for _ in range(LIMIT_LINES + 3):
        log.warning("storm")
    hands.ns += LIMIT_S * 10**9
    log.info("wakes the writer")
    with os.fdopen(os.dup(pipe.read_end), "rb") as file:
        told = next(line for line in map(json.loads, file) if line["event"] == "log_lines_suppressed")
    assert (told["of"], told["lines"]) == ("storm", 3)
    assert log.close()


def test_many_threads_lose_nothing(pipe: Pipe) -> None:
    log = Log("feed", descriptor=pipe.write_end)
    received: list[dict[str, Any]] = []
    copy = os.dup(pipe.write_end)
    log._writer._descriptor = copy
    reader = threading.Thread(target=lambda: received.extend(pipe.lines()))
    reader.start()

    def write(part: int) -> None:
        for number in range(200):
            log.info(f"{part}:{number}")

    threads = [threading.Thread(target=write, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert log.close(10)
    os.close(copy)
    reader.join()
    assert len({line["event"] for line in received}) == 800


def test_lines_of_libraries_come_in(pipe: Pipe) -> None:
    log = Log("feed", descriptor=pipe.write_end)
    root = logging.getLogger()
    kept, level = root.handlers[:], root.level
    try:
        capture_standard(log)
        logging.getLogger("asyncio").error("task %s died", 7)
        logging.getLogger("asyncio").debug("quiet")
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            logging.captureWarnings(True)
            warnings.warn("old", DeprecationWarning, stacklevel=1)
    finally:
        logging.captureWarnings(False)
        root.handlers[:] = kept
        root.setLevel(level)
    assert log.close()
    lines = pipe.lines()
    assert (lines[0]["event"], lines[0]["text"], lines[0]["level"]) == ("library:asyncio", "task 7 died", "error")
    assert [line["event"] for line in lines[1:]] == ["library:py.warnings"]


@pytest.mark.parametrize("stream", ["its own", "another", ""])
def test_the_journal_gets_a_priority_and_whoever_else_reads_does_not(pipe: Pipe, stream: str) -> None:
    there = os.fstat(pipe.write_end)
    told = {"its own": f"{there.st_dev}:{there.st_ino}", "another": f"{there.st_dev}:{there.st_ino + 1}", "": ""}[stream]
    log = Log("feed", "kis", level="debug", descriptor=pipe.write_end, journal=told)
    for level in LEVELS:
        log.write(LEVELS.index(level), level, {})
    log.close()
    os.close(pipe.write_end)
    with os.fdopen(pipe.read_end, "rb") as file:
        lines = file.read().splitlines()
    priorities = ["<7>", "<6>", "<4>", "<3>"] if stream == "its own" else ["", "", "", ""]
    assert [line.partition(b"{")[0].decode() for line in lines] == priorities
    assert [json.loads(line[line.index(b"{") :])["level"] for line in lines] == list(LEVELS)


def test_levels_are_in_order() -> None:
    assert log_module.LEVELS == ("debug", "info", "warning", "error")
