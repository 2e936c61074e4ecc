"""The list of targets: name -> the function that judges some bytes, and the seeds to start from.

A target is `target(data: bytes) -> None`. It raises nothing while the program keeps its contract: only the errors that the
called function documents may come out of it, and the target catches those.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType

from fuzz import files, memory, messages, words

CORPUS = Path(__file__).parent / "corpus"


@dataclass(frozen=True)
class Target:
    """One target. `keeps`: what its input is, for the fuzzers' mutations: "text" (lines, fields, JSON) or "bytes"."""

    name: str
    run: Callable[[bytes], None]
    make_seeds: Callable[[], list[bytes]]
    keeps: str

    @property
    def folder(self) -> Path:
        return CORPUS / self.name

    @cached_property
    def corpus(self) -> dict[str, bytes]:
        """The kept inputs by file name: seed_* are made by `make_seeds`, found_* are crashes of the past."""
        return {path.name: path.read_bytes() for path in sorted(self.folder.iterdir())}


def _target(module: ModuleType, name: str, keeps: str) -> Target:
    return Target(name, getattr(module, name), getattr(module, f"{name}_seeds"), keeps)


_ALL = (
    *(_target(messages, name, "text") for name in (
        "kis_data", "upbit_data", "kis_control", "upbit_control", "rest_answers", "kis_feed", "upbit_feed")),
    *(_target(files, name, "text") for name in ("segment_lines", "manifest_lines", "session_lines", "text_log")),
    _target(files, "segment_bytes", "bytes"),
    *(_target(memory, name, "bytes") for name in ("ring_header", "board_header", "counters_block", "intake_cell")),
    _target(memory, "state_file", "text"),
    *(_target(words, name, "text") for name in ("config_toml", "secrets_file", "cli_words")),
)  # fmt: skip
TARGETS = {target.name: target for target in _ALL}
