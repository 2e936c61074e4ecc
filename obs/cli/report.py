"""What a judging command returns, and how it is shown."""

from __future__ import annotations

from typing import Any, Protocol

from obs.cli.terminal import plain, print_json
from obs.errors import EXIT_FOUND, EXIT_GOOD, EXIT_UNKNOWN


class Report(Protocol):
    """A finished judgement; `ok` None: it could not be reached."""

    ok: bool | None

    def to_json(self) -> Any: ...

    def lines(self) -> list[str]: ...


def show(report: Report, *, as_json: bool) -> int:
    """Print a report and return its exit code."""
    if as_json:
        print_json(report.to_json())
    else:
        print("\n".join(plain(line) for text in report.lines() for line in text.split("\n")))
    return {True: EXIT_GOOD, False: EXIT_FOUND, None: EXIT_UNKNOWN}[report.ok]
