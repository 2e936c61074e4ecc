"""KIS credentials: the key of one WebSocket connection (Approval) and the REST token (tokenP).

Answers are judged by their body: errors come with several HTTP statuses and the same JSON.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson

from obs.errors import AuthRejected, ConnectionLost
from obs.providers.base import Approval, Credential, Request, Token
from obs.providers.kis import protocol as p

_KST: Final = timedelta(hours=9)  # Source: Korea has had no daylight saving since 1988
# Source: portal: this spelling for Approval, which misses "charset="; tokenP takes the usual one.
_APPROVAL_HEADERS: Final = (("content-type", "application/json; utf-8"),)
_TOKEN_HEADERS: Final = (("content-type", "application/json; charset=utf-8"),)


def approval_request(rest_url: str, credential: Credential) -> Request:
    """Return the request for a fresh approval key; not more than one a second, one before each connect."""
    body = {"grant_type": "client_credentials", "appkey": credential.key, p.APPROVAL_SECRET_FIELD: credential.secret}
    return Request("POST", rest_url.rstrip("/") + p.APPROVAL_PATH, _APPROVAL_HEADERS, orjson.dumps(body))


def token_request(rest_url: str, credential: Credential) -> Request:
    """Return the request for a token; not more than one a minute, and each sends the account's owner a phone message."""
    body = {"grant_type": "client_credentials", "appkey": credential.key, p.TOKEN_SECRET_FIELD: credential.secret}
    return Request("POST", rest_url.rstrip("/") + p.TOKEN_PATH, _TOKEN_HEADERS, orjson.dumps(body))


def parse_approval(status: int, body: bytes) -> Approval:
    """Return the approval key. Raises AuthRejected (wrong key or secret) or ConnectionLost (anything else)."""
    return Approval(_text(_answer("Approval", status, body, p.APPROVAL_SPACING_S), "Approval", status, "approval_key"))


def parse_token(status: int, body: bytes, now_ns: int) -> Token:
    """Return the token with its end, the earlier one of the two that the answer states. Raises as parse_approval."""
    answer = _answer("tokenP", status, body, p.TOKEN_SPACING_S)
    value = _text(answer, "tokenP", status, "access_token")
    ends = []
    lifetime = answer.get("expires_in")
    if isinstance(lifetime, int) and not isinstance(lifetime, bool) and 0 < lifetime < 10 * 86400:
        ends.append(now_ns + lifetime * 10**9)
    try:
        # A request within 6 h gets the same token again, so only this field tells its real end.
        stated = datetime.strptime(str(answer.get("access_token_token_expired")), "%Y-%m-%d %H:%M:%S")
        ends.append(int((stated - _KST).replace(tzinfo=UTC).timestamp()) * 10**9)
    except (ValueError, OverflowError):  # no date, or one before the first that there is
        pass
    if not ends:
        raise ConnectionLost("token answer states no end", call="tokenP", status=status)
    return Token(value, min(ends))


def _answer(call: str, status: int, body: bytes, spacing_s: float) -> dict[str, Any]:
    """Return the JSON object of a good answer; what else came is classed by its error_code, and never quoted.

    `spacing_s`: of this call; the code of a call that came too early is the same for both, the time to wait is not.
    """
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        answer = None
    if not isinstance(answer, dict):
        raise ConnectionLost("answer is not a JSON object", call=call, status=status, length=len(body))
    code = answer.get("error_code")
    if isinstance(code, str) and code in p.REJECTED_CODES:
        raise AuthRejected("app key or secret refused", call=call, status=status, code=code)
    if code is not None:
        raise ConnectionLost("venue refused for now", call=call, status=status, code=str(code)[:32], retry_after_s=spacing_s)
    return answer


def _text(answer: dict[str, Any], call: str, status: int, name: str) -> str:
    value = answer.get(name)
    if not isinstance(value, str) or not value or not value.isascii() or not value.isprintable():
        raise ConnectionLost("answer holds no key", call=call, status=status, expected=name)
    return value
