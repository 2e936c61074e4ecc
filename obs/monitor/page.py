"""The page at `/`: what is live now, as plain HTML that needs no script and no other host."""

from __future__ import annotations

from html import escape
from typing import Any, Final

from obs.monitor.status import lines

_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>obs: {state}</title><meta http-equiv="refresh" content="2">
<style>body{{font:14px/1.5 monospace;margin:2em;background:#111;color:#ddd}}h1{{color:{colour}}}a{{color:#8cf}}</style></head>
<body><h1>obs: {state}</h1><pre>{text}</pre><p>{ts} · <a href="health">health</a> · <a href="metrics">metrics</a></p></body></html>
"""


def render(status: dict[str, Any]) -> bytes:
    """Return the page of one status."""
    good = status["health"]["ok"]
    text = escape("\n".join(lines(status)))
    return _PAGE.format(state="good" if good else "red", colour="#6c6" if good else "#f66", text=text, ts=status["ts"]).encode()
