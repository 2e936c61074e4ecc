"""Since when it is so: the monitor has looked all along, a command has just begun.

It is asked by HTTP at the place that its file names, with the token if there is one. Where it does not answer, nothing is known.
"""

from __future__ import annotations

import http.client
from typing import Any, Final

import orjson

from obs.config import Config
from obs.config.credentials import read_token
from obs.errors import ConfigError
from obs.monitor.host import is_alive

_WAIT_S: Final = 0.5
_BYTES: Final = 4 << 20
Known = dict[tuple[str, str], int | None]


def ask(config: Config) -> Known:
    """Return (reason, provider) -> UTC milliseconds since which it has kept health red; ("", ""): since when health is what it is."""
    try:
        place = orjson.loads((config.data_dir / "state" / "http.json").read_bytes())
        if not is_alive(int(place["pid"])):  # a file that was left behind: nobody else gets our token
            return {}
        token = read_token(config)
        # Not urllib: it would ask a proxy.
        connection = http.client.HTTPConnection(str(place["host"]), int(place["port"]), timeout=_WAIT_S)
        try:
            connection.request("GET", "/api/status", headers={"Authorization": f"Bearer {token}"} if token else {})
            health = orjson.loads(connection.getresponse().read(_BYTES))["health"]
        finally:
            connection.close()
        return {(one["reason"], one["provider"]): one["since_ms"] for one in health["details"]} | {("", ""): health["since_ms"]}
    except (OSError, ValueError, KeyError, TypeError, http.client.HTTPException, ConfigError):
        return {}


def correct(status: dict[str, Any], known: Known) -> None:
    """Put what the monitor knows into a status that has only just been looked at."""
    health = status["health"]
    health["since_ms"] = known.get(("", ""))
    for one in health["details"]:
        one["since_ms"] = known.get((one["reason"], one["provider"]))
