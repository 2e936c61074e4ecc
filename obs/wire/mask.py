"""Keep secrets out of text: what of a URL may be shown, and the removal of known values from a message of somebody else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import parse_qsl, urlsplit

HIDDEN: Final = "***"
_SHORTEST: Final = 4  # characters; shorter values are no secrets, and hiding "1" would hide everything
# Headers whose values may be shown; all others count as secret, so that a venue's own header name is never forgotten.
_OPEN_HEADERS: Final = frozenset({"accept", "accept-encoding", "accept-language", "content-type", "user-agent", "host"})


def masked_url(url: str) -> str:
    """Return `url` without user, password, query values and fragment."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        where = f"[{host}]" if ":" in host else host
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return HIDDEN
    return f"{parts.scheme}://{where}{port}{parts.path}" + (f"?{HIDDEN}" if parts.query else "")


def secrets_of(url: str, headers: Mapping[str, str]) -> tuple[str, ...]:
    """Return the values that no text about this request may show, longest first."""
    try:
        parts = urlsplit(url)
        found = {value for _, value in parse_qsl(parts.query)} | {parts.username or "", parts.password or "", parts.query}
    except ValueError:
        found = {url}
    for name, value in headers.items():
        if name.lower() not in _OPEN_HEADERS:
            found.update((value, *value.split()))
    return tuple(sorted((value for value in found if len(value) >= _SHORTEST), key=len, reverse=True))


def scrub(text: str, secrets: Iterable[str]) -> str:
    """Return `text` with every one of `secrets` replaced by ***."""
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    return text
