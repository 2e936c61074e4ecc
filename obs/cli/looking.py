"""What `obs top` looks at, again and again: health, slots, and the newest record of each symbol, all from shared memory.

Nothing is written and nothing waits for it. Health and rates are the monitor's where one answers, so that both say the same.
"""

from __future__ import annotations

from typing import Any, Final

from obs.cli.frame import Look, Price
from obs.cli.running_monitor import ask, correct
from obs.clock import NS, SYSTEM, Clock
from obs.config import Config
from obs.monitor.live import Live
from obs.monitor.slots import Names, foreign, slots_of
from obs.monitor.status import Looks, status_of

_AGAIN_NS: Final = 5 * NS  # until a monitor that did not answer is asked again: each time may take a while


class Looker:
    """Looks at one data directory. Safety: one thread."""

    def __init__(self, config: Config, clock: Clock = SYSTEM) -> None:
        self._config, self._clock = config, clock
        self._looks, self._live = Looks(config, clock), Live(config.data_dir, config.ring.dir, clock)
        self._names = Names(config.data_dir)
        self._known: dict[tuple[str, str], int | None] | None = None  # since when, of what was so before we came
        self._ask_ns = 0  # not before
        self._cpu: dict[int, float] = {}
        self._looked_ns = 0
        self._steps: dict[tuple[str, str], tuple[float, int]] = {}  # last price, and which way it went
        self.complaints: list[str] = []  # files that do not read, each once

    def look(self) -> Look:
        """Return what is there now."""
        view, verdict = self._looks.look()
        self._live.follow({provider.name: provider.session_id for provider in view.providers})
        self._live.ticks()
        status = status_of(view, verdict, self._looks.trend, self._live.venue_ms)
        self._correct(status)
        slots = {}
        for provider in view.providers:
            section = self._config.provider(provider.name) or foreign(self._config.data_dir, provider.name)
            if (one := slots_of(self._config, section, self._complain, self._names)) is not None:
                slots[provider.name] = one
        return Look(view.now_ns, status, slots, self._prices(), self._shares(status))

    def close(self) -> None:
        self._looks.close()
        self._live.end()

    def _correct(self, status: dict[str, Any]) -> None:
        """Take what the monitor says; if none answers, our own looks know since when, of what was not so before we came."""
        now = self._clock.mono_ns()
        if now >= self._ask_ns:
            if (answer := ask(self._config)) is not None:
                correct(status, answer)
                self._known = answer.since()
                return
            self._ask_ns = self._clock.mono_ns() + _AGAIN_NS
        details = status["health"]["details"]
        present = {(one["reason"], one["provider"]) for one in details}
        if self._known is None:
            self._known = dict.fromkeys(present)
        self._known = {key: since_ms for key, since_ms in self._known.items() if key in present}
        for one in details:
            key = (one["reason"], one["provider"])
            one["since_ms"] = self._known.get(key, one["since_ms"])

    def _complain(self, text: str) -> None:
        if text not in self.complaints:
            self.complaints.append(text)

    def _prices(self) -> dict[str, dict[str, Price]]:
        found: dict[str, dict[str, Price]] = {}
        sparks = self._live.sparks()
        for provider, ticks in self._live.latest().items():
            lines = sparks.get(provider, {})
            for symbol, (ts_ms, price, _, quality) in ticks.items():
                before, step = self._steps.get((provider, symbol), (price, 0))
                if price != before:
                    step = 1 if price > before else -1
                self._steps[provider, symbol] = (price, step)
                line = tuple(point[1] for point in lines.get(symbol, ()))
                found.setdefault(provider, {})[symbol] = Price(ts_ms, price, quality, step, line)
        return found

    def _shares(self, status: dict[str, Any]) -> dict[int, float]:
        """Return which share of a core each process has used since the look before."""
        now = self._clock.mono_ns()
        before, passed_s, self._looked_ns = self._cpu, (now - self._looked_ns) / NS, now
        self._cpu = {one["pid"]: one.get("cpu_s", 0.0) for one in status["processes"]}
        return {pid: max(0.0, used - before[pid]) / passed_s for pid, used in self._cpu.items() if pid in before and passed_s > 0}
