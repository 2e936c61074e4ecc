"""What the running monitor says of health: it has looked all along, a command has just begun.

How long a connection has been quiet, how fast a feed is, and since when it is so are seen by who keeps looking. The monitor is asked by
HTTP at the place that its file names, with the token if there is one. Where it does not answer, the command's own look must do.
"""

from __future__ import annotations

import http.client
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import orjson

from obs.clock import NS, SYSTEM
from obs.config import Config
from obs.config.credentials import read_token
from obs.errors import ConfigError
from obs.monitor.host import is_alive

_WAIT_S: Final = 0.5
_BYTES: Final = 4 << 20
_OLD_S: Final = 15.0  # an answer that is older is one of a monitor that has stopped looking
_LOSS: Final = ("reason", "since")
_REASON: Final = ("reason", "provider", "text")


@dataclass(frozen=True)
class Answer:
    """`health` as /health has it, with since when. By provider: `rates`, what its feed does per second; `losing`, its losses that go on."""

    health: dict[str, Any]
    rates: dict[str, dict[str, Any]]
    losing: dict[str, list[dict[str, Any]]]

    def since(self) -> dict[tuple[str, str], int | None]:
        """Return (reason, provider) -> UTC milliseconds since which it has kept health red."""
        return {(one["reason"], one["provider"]): one["since_ms"] for one in self.health["details"]}


def ask(config: Config) -> Answer | None:
    """Return what the monitor of this data directory says now, None if none answers."""
    try:
        place = orjson.loads((config.data_dir / "state" / "http.json").read_bytes())
        if not is_alive(int(place["pid"])):  # a file that was left behind: nobody else gets our token
            return None
        token = read_token(config)
        # Not urllib: it would ask a proxy.
        connection = http.client.HTTPConnection(str(place["host"]), int(place["port"]), timeout=_WAIT_S)
        try:
            connection.request("GET", "/api/status", headers={"Authorization": f"Bearer {token}"} if token else {})
            return _read(orjson.loads(connection.getresponse().read(_BYTES)))
        finally:
            connection.close()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, http.client.HTTPException, ConfigError):
        return None


def _read(status: dict[str, Any]) -> Answer | None:
    """Return what is taken of an answer, None if it is old. Raises KeyError, TypeError or ValueError if it is none."""
    if SYSTEM.wall_ns() / NS - datetime.fromisoformat(status["ts"]).timestamp() > _OLD_S:
        return None
    health = status["health"]
    details = [{name: str(one[name]) for name in _REASON} | {"since_ms": _whole(one["since_ms"])} for one in health["details"]]
    if bool(details) is bool(health["ok"]):
        raise ValueError("health and its reasons disagree")
    health |= {
        "ok": not details, "since_ms": _whole(health["since_ms"]), "details": [
            one | taken for one, taken in zip(health["details"], details, strict=True)
        ],
    }  # fmt: skip
    rates = {one["name"]: dict(one["rates"]) for one in status["providers"]}
    losing = {one["name"]: [{name: str(loss[name]) for name in _LOSS} | {"sure": bool(loss["sure"])} for loss in one["losing"]]
              for one in status["providers"]}  # fmt: skip
    return Answer(health, rates, losing)


def _whole(value: Any) -> int | None:
    return None if value is None else int(value)


def correct(status: dict[str, Any], answer: Answer | None) -> None:
    """Put what the monitor says into a status that has only just been looked at; without it, since when is not known."""
    if answer is not None:
        status["health"] = answer.health
        for one in status["providers"]:
            one["rates"] = answer.rates.get(one["name"], one["rates"])
            one["losing"] = answer.losing.get(one["name"], one["losing"])
        return
    status["health"]["since_ms"] = None
    for one in status["health"]["details"]:
        one["since_ms"] = None
