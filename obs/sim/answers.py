"""Ways in which a REST answer can be wrong although it comes: what gateways, proxies and venues on a bad day have sent."""

from __future__ import annotations

import re
from typing import Final

from aiohttp import web

from obs.sim.script import Action

_HTML: Final = b"<html><head><title>Service Unavailable</title></head><body><h1>Service Unavailable</h1></body></html>"
_ERRORS: Final = {
    "kis": '{"rt_cd":"1","msg_cd":"EGW00202","msg1":"GW라우팅 중 오류가 발생했습니다."}',
    "upbit": '{"error":{"name":"internal_error","message":"Internal server error"}}',
}
_PRICES: Final = re.compile(
    rb'("(?:inter2_(?:prpr|oprc|hgpr|lwpr)|stck_(?:prpr|oprc|hgpr|lwpr)|(?:opening|high|low|trade)_price)":)("?)[0-9.]+("?)'
)


def spoiled(answer: web.Response, fault: Action | None, venue: str) -> web.Response:
    """Return the answer as the fault leaves it: always with status 200, except for one that was no 200 before."""
    if fault is None or not isinstance(answer.body, bytes | bytearray):
        return answer
    how, body = str(fault.parameters["with"]), bytes(answer.body)
    headers = {name: answer.headers[name] for name in ("Remaining-Req", "Limit-By-Ip", "tr_id", "tr_cont") if name in answer.headers}
    kind = answer.content_type
    match how:
        case "html":
            body, kind = _HTML, "text/html"
        case "truncated":
            body = body[: len(body) // 2]
        case "empty":
            body = b""
        case "error200":
            return web.Response(body=_ERRORS[venue].encode(), headers=headers, content_type="application/json")
        case _:
            body = _PRICES.sub(rb"\g<1>\g<2>0\g<3>", body)
    return web.Response(body=body, status=answer.status, headers=headers, content_type=kind)
