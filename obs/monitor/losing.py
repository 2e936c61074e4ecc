"""What is being lost right now, as far as looks can tell: a gap line is written when its loss has ended, this speaks of it until then.

Pure memory of looks. A link that has lost its connection loses from the last message on, as its gap line will say, until it is connected
and has subscribed again; what a feed that died loses goes on until the next one has done so, and has its first record. A market that is
closed and a link for which nothing is wanted lose nothing; of an ordered stop, which somebody knows of, the next start tells. A
connection that is open but silent in regular hours may be losing: that is told after SILENT_S, as not sure, for the feed itself decides
later, and by the pace of the venue.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from obs.clock import NS
from obs.monitor.view import HostView, ProviderView, RoleView
from obs.record.events import iso_ms, reason_of_end

SILENT_S: Final = 10.0  # as long as the rates are taken over
_SAME_NS: Final = NS // 2  # the same message: two clocks, read one after the other, do not tell its time twice alike
_ORDERED: Final = ("", "stopped", "market_closed", "nothing_wanted")  # why a connection is not there that is not told here
_ALL: Final = ""  # in place of the name of a link: the feed itself has died


class Loss(NamedTuple):
    """`link` None: everything of the provider. reason: as its gap line will name it, if nothing else happens. sure: it is a loss."""

    link: str | None
    reason: str
    since_ns: int
    sure: bool = True

    def to_json(self) -> dict[str, Any]:
        return {
            "link": self.link, "reason": self.reason, "since": iso_ms(self.since_ns), "since_ms": self.since_ns // 1_000_000,
            "sure": self.sure,
        }  # fmt: skip


class Losses:
    """`add` takes each look in turn; `of` speaks of the last one. Safety: one thread."""

    def __init__(self) -> None:
        self._now: dict[str, list[Loss]] = {}
        self._open: dict[str, dict[str, Loss]] = {}  # provider -> link -> its loss
        self._heard: dict[str, int] = {}  # provider -> when its feed last received a message
        self._fine: dict[tuple[str, str], int] = {}  # provider, link -> when it last had nothing to lose

    def of(self, provider: str) -> list[Loss]:
        return self._now.get(provider, [])

    def add(self, view: HostView, mono_ns: int) -> None:
        """Take a look; `mono_ns`: when it was made."""
        self._now = {one.name: self._judged(one, view.now_ns, mono_ns) for one in view.providers}
        for known in (self._open, self._heard):
            for name in known.keys() - self._now.keys():
                del known[name]
        self._fine = {key: ns for key, ns in self._fine.items() if key[0] in self._now}

    def _judged(self, provider: ProviderView, now_ns: int, mono_ns: int) -> list[Loss]:
        name, feed = provider.name, provider.roles.get("feed")
        known = self._open.setdefault(name, {})
        if feed is None or not provider.open_now or feed.counters.get("stopping"):
            known.clear()
            for key in (_ALL, *map(_name, provider.links)):
                self._fine[name, key] = now_ns
            return []
        if feed.alive:
            heard_ns = now_ns - int(provider.quiet_s * NS)
            if abs(heard_ns - self._heard.get(name, 0)) > _SAME_NS:
                self._heard[name] = heard_ns
            for link in provider.links:
                if link.get("pid") == feed.pid:  # else the board still holds the words of the feed before this one
                    self._link(name, link, now_ns, mono_ns)
                    if link.get("restart_ns"):  # owed by the feed, whoever of us has seen it begin
                        known[_ALL] = Loss(None, "restart", int(link["restart_ns"]))
        elif feed.pid and _ALL not in known:
            known[_ALL] = Loss(None, "restart", self._begun(name, _ALL, now_ns - int((feed.beat_age_s or 0) * NS)))
        return self._told(provider, feed)

    def _link(self, name: str, link: dict[str, Any], now_ns: int, mono_ns: int) -> None:
        known, key = self._open[name], _name(link)
        why = str(link.get("last_reason") or "")
        if link.get("closed_market") or link.get("waiting"):
            known.pop(key, None)
            self._fine[name, key] = now_ns
        elif link.get("connected"):
            if link.get("subscribed"):
                known.pop(key, None)
                known.pop(_ALL, None)
        elif why not in _ORDERED:
            since_ns = self._begun(name, key, now_ns - max(0, mono_ns - int(link.get("since_mono_ns") or mono_ns)))
            known[key] = Loss(key, reason_of_end(why), min(since_ns, known[key].since_ns) if key in known else since_ns)

    def _begun(self, name: str, link: str, ended_ns: int) -> int:
        """Return since when a link loses whose connection ended at `ended_ns`: since its last message, if nothing excused it later."""
        return max(min(ended_ns, self._heard.get(name, ended_ns)), self._fine.get((name, link), 0))

    def _told(self, provider: ProviderView, feed: RoleView) -> list[Loss]:
        found = list(self._open[provider.name].values())
        if _ALL in self._open[provider.name]:
            return [Loss(None, "restart", min(one.since_ns for one in found))]
        if found:
            alone = sum(not link.get("waiting") for link in provider.links) == 1
            return sorted((one._replace(link=None) for one in found) if alone else found, key=lambda one: one.since_ns)
        connected = any(link.get("connected") for link in provider.links)
        if feed.alive and connected and provider.regular_now and provider.quiet_s > SILENT_S:
            return [Loss(None, "mute", max(self._heard[provider.name], self._fine.get((provider.name, _ALL), 0)), sure=False)]
        return []


def _name(link: dict[str, Any]) -> str:
    return str(link.get("name") or "?")
