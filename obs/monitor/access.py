"""Who may ask the monitor: token, cookie, Host header, and what every answer tells a browser: pure.

Where a token is set, each request carries it: as `Authorization: Bearer`, or as the cookie that the login page gives for it. The
cookie is the time of its issue with an HMAC of that, keyed by the token: it outlives restarts, ends with the token or after
COOKIE_DAYS, and does not hold the token. Compared in constant time.

Where none is set, only this machine can connect; a page of another site could still reach us through a browser on it by giving its
own name our address, so the Host header must be a name of this machine.

A wrong token waits before it learns so, longer each time, each address by itself; the right one never waits.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from typing import Final, Literal

COOKIE: Final = "obs_session"
COOKIE_DAYS: Final = 30
_NS: Final = 1_000_000_000
_FORM: Final = re.compile(r"(\d{1,12})\.([0-9a-f]{64})")
_LOOPBACK: Final = re.compile(r"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d{1,5})?", re.IGNORECASE)
_AHEAD_S: Final = 300  # a cookie of the future, as after a step of the clock
_FIRST_WAIT_S: Final = 0.5
_LONGEST_WAIT_S: Final = 8.0
_FORGIVEN_S: Final = 600.0
_ADDRESSES: Final = 1024

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; font-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
    "Cache-Control": "no-store",
    "Server": "obs",  # whose version is nobody's business
}

Standing = Literal["good", "none", "wrong"]


class Access:
    """What one monitor asks for. `token` None: nothing; "" (it could not be read): nobody gets in. `host`: as configured."""

    def __init__(self, token: str | None, host: str) -> None:
        self.token = token
        self._host = host.strip("[]").lower()
        self._key = hashlib.sha256(b"obs session cookie\0" + token.encode()).digest() if token else b""

    def is_host_good(self, host: str | None) -> bool:
        """Whether a Host header may stand there; with a token it may be any: a foreign page has neither token nor cookie."""
        if self.token is not None:
            return True
        if host is None or _LOOPBACK.fullmatch(host):
            return True  # without one it is no browser
        return re.sub(r":\d{1,5}$", "", host).strip("[]").lower() == self._host

    def standing(self, authorization: str | None, cookie: str | None, now_ns: int) -> Standing:
        """Judge one request: it may go on, it brought nothing, or something wrong (which is slowed down)."""
        if self.token is None:
            return "good"
        if authorization is not None:
            scheme, _, given = authorization.partition(" ")
            return "good" if scheme.lower() == "bearer" and self.is_token(given.strip()) else "wrong"
        if cookie is not None:
            return "good" if self._is_cookie(cookie, now_ns) else "none"  # an old one is no guess
        return "none"

    def is_token(self, given: str) -> bool:
        token = self.token or ""
        return hmac.compare_digest(given.encode("utf-8", "replace"), token.encode()) and bool(token)

    def cookie(self, now_ns: int) -> str:
        """Return a new value of the cookie, for who has shown the token."""
        issued = str(now_ns // _NS)
        return f"{issued}.{self._sign(issued)}"

    def _sign(self, issued: str) -> str:
        return hmac.new(self._key, issued.encode(), hashlib.sha256).hexdigest()

    def _is_cookie(self, value: str, now_ns: int) -> bool:
        form = _FORM.fullmatch(value)
        if form is None or not self._key or not hmac.compare_digest(form[2], self._sign(form[1])):
            return False
        return -_AHEAD_S <= now_ns // _NS - int(form[1]) <= COOKIE_DAYS * 86_400


class Patience:
    """How long a wrong token waits: by address, doubled each time, forgiven after a while, of a bounded number of addresses."""

    def __init__(self) -> None:
        self._wrong: dict[str, tuple[int, int]] = {}  # address -> times, monotonic time of the last one

    def wait_s(self, address: str, now_ns: int) -> float:
        """Take a wrong attempt and return what it waits."""
        times, last_ns = self._wrong.pop(address, (0, now_ns))
        if now_ns - last_ns > _FORGIVEN_S * _NS:
            times = 0
        self._wrong[address] = (times + 1, now_ns)  # last in the order: the first is the oldest
        if len(self._wrong) > _ADDRESSES:
            del self._wrong[next(iter(self._wrong))]
        return min(_FIRST_WAIT_S * 2.0 ** min(times, 10), _LONGEST_WAIT_S)

    def forgive(self, address: str) -> None:
        """Forget what an address did: it has shown the right token."""
        self._wrong.pop(address, None)
