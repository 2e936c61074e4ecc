"""A demo that a browser looks at, and pages that are watched while it does."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import orjson
from playwright.sync_api import BrowserContext, Page

from obs.config.demo import KIS_SYMBOLS, UPBIT_SYMBOLS
from tests.integration.supervised import ROOT, Supervised, Supervisor, until

TOKEN: Final = "a-token-of-the-browser-tests"
MARKED: Final = "20260122"
SEEN_MS: Final = 7000  # longer than it takes a page to call a symbol silent
SYMBOLS: Final = {"kis": KIS_SYMBOLS, "upbit": UPBIT_SYMBOLS}
CHROMIUM: Final = shutil.which("chromium")
FLAGS: Final = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync",
)  # fmt: skip
# What the content policy forbids is told by an event of the document, whatever a browser writes into its console.
_WATCH: Final = """
window.breaches = [];
document.addEventListener("securitypolicyviolation", (event) => window.breaches.push(`${event.violatedDirective} ${event.blockedURI}`));
"""


class Demo(Supervised):
    """A supervisor with its exchanges, as `--demo` has them, at a port that stays while the monitor is killed."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            self.port = int(taken.getsockname()[1])
        token = folder / "token"
        token.write_text(TOKEN + "\n")
        token.chmod(0o600)
        symbols = {f"providers__{name}": {"symbols": list(of)} for name, of in SYMBOLS.items()}
        super().__init__(folder, None, http={"port": self.port, "token_file": str(token)}, **symbols)
        self.url = f"http://127.0.0.1:{self.port}"
        self.supervisor: Supervisor | None = None

    def _venue(self, name: str) -> tuple[subprocess.Popen[bytes], int]:
        command = [sys.executable, "-m", "obs.sim", name, "--port", "0", "--source", "model", "--rate", "150", "--seed", "7"]
        process = subprocess.Popen(
            [*command, "--die-with-parent"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT
        )
        assert process.stdout is not None
        return process, int(orjson.loads(process.stdout.readline())["port"])

    def run(self) -> None:
        """Start, and return when both exchanges are being recorded."""
        self.supervisor = self.start()
        self.supervisor.ready(90.0)
        self.recording("kis", "upbit")

    def status(self) -> dict[str, Any]:
        """What the monitor says, as soon as it answers: a test may have killed it."""
        request = urllib.request.Request(f"{self.url}/api/status", headers={"Authorization": f"Bearer {TOKEN}"})

        def ask() -> dict[str, Any] | None:
            try:
                with urllib.request.urlopen(request, timeout=10) as answer:
                    return dict(orjson.loads(answer.read()))
            except OSError:  # an HTTP error, too
                return None

        return dict(until("the monitor answers", ask, 60.0))

    def be_mute(self, name: str) -> None:
        """Let an exchange say nothing until it is told from, and be slow to take the connection again until that is seen.

        Whoever does not answer cannot be reached again either, so the reason stays for as long as it takes to look.
        """
        self.do(name, "mute", s=29)
        until("nothing comes", lambda: self._rates(name)["messages"] == 0, 60.0)
        venue = self.venues[name][0]
        venue.send_signal(signal.SIGSTOP)
        try:
            until("it is a reason", lambda: any(now - since > SEEN_MS for since, now in self._mute(name)), 60.0)
        finally:
            venue.send_signal(signal.SIGCONT)

    def _rates(self, name: str) -> dict[str, Any]:
        (found,) = (one for one in self.status()["providers"] if one["name"] == name)
        return found["rates"] or {"messages": None}

    def _mute(self, name: str) -> list[tuple[int, int]]:
        """Since when it is a reason, and what time it is."""
        status = self.status()
        now = int(datetime.fromisoformat(status["ts"]).timestamp() * 1000)
        details = status["health"]["details"]
        return [(one["since_ms"], now) for one in details if (one["reason"], one["provider"]) == ("mute", name)]

    def obs(self, *words: str) -> None:
        """Run a command of `obs` on this data directory."""
        command = [sys.executable, "-m", "obs.cli", "--config", str(self.config), "--data", str(self.data), *words]
        subprocess.run(command, check=True, capture_output=True, cwd=ROOT, env=self.environ())


@dataclass
class Watched:
    """A page and what went wrong in it. `expected`: messages of the console that the test itself provokes."""

    page: Page
    wrong: list[str] = field(default_factory=list)
    expected: re.Pattern[str] | None = None

    def judge(self, url: str) -> None:
        found = [text for text in self.wrong if self.expected is None or not self.expected.search(text)]
        if self.page.url.startswith(url):
            found += self.page.evaluate("window.breaches")
        assert not found, found


def watch(context: BrowserContext, ours: str) -> Watched:
    """Return a new page whose every error, breach of the content policy and request to another host is noted."""
    context.add_init_script(_WATCH)
    one = Watched(context.new_page())
    one.page.on("console", lambda message: one.wrong.append(message.text) if message.type in ("error", "warning") else None)
    one.page.on("response", lambda answer: one.wrong.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None)
    one.page.on("pageerror", lambda error: one.wrong.append(str(error)))
    one.page.on("request", lambda request: None if _is_ours(request.url, ours) else one.wrong.append(f"asks {request.url}"))
    return one


def _is_ours(url: str, ours: str) -> bool:
    return url.startswith((ours + "/", "data:"))


def settled(page: Page) -> Page:
    """Wait until a live page has its slots and its charts."""
    page.wait_for_selector("[data-testid=slot-upbit-KRW-BTC]")
    page.wait_for_selector("[data-testid=gapmap-upbit] canvas")
    return page
