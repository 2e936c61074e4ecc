"""The REST side of the simulated Upbit that a collector needs: the market list and tickers, with the venue's limits.

With a universe the data, and more calls of it, come from upbit_listed.py.

Source: Upbit sheet, section 4: 10 requests/s per IP and group, `Remaining-Req` with a fixed `min`; too many: 429; going on:
418, a block whose length is in the body and grows.
"""

from __future__ import annotations

import json
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from obs.sim.market import Symbol
from obs.sim.now import mono_s, second_s, wall_ns
from obs.sim.upbit_encode import fixed
from obs.sim.upbit_listed import RestError, UpbitListed, encoded, group_of

if TYPE_CHECKING:
    from obs.sim.upbit import UpbitExchange

_PER_S: Final = 10
_PATIENCE: Final = 5  # refusals in a row until the block. Source: assumed
_BLOCK_S: Final = 10  # the first block; each further one is twice as long. Source: assumed
_GROUPS: Final = {"/v1/market/all": "market", "/v1/ticker": "ticker", "/v1/ticker/all": "ticker"}
_EVENTS: Final = (
    "PRICE_FLUCTUATIONS", "TRADING_VOLUME_SOARING", "DEPOSIT_AMOUNT_SOARING", "GLOBAL_PRICE_DIFFERENCES",
    "CONCENTRATION_OF_SMALL_ACCOUNTS",
)  # fmt: skip


@dataclass(slots=True)
class _Allowance:
    times: deque[float] = field(default_factory=deque)
    refusals: int = 0
    blocks: int = 0
    blocked_until_s: float = 0.0


class UpbitRest:
    """Answers REST requests from the market of one exchange."""

    def __init__(self, exchange: UpbitExchange) -> None:
        self._exchange = exchange
        self._listed: UpbitListed | None = None
        self._allowances: dict[tuple[str, str], _Allowance] = {}

    def answer(self, request: web.BaseRequest) -> web.Response:
        universe = self._exchange.universe
        group = _GROUPS.get(request.path) if universe is None else group_of(request.path)
        if group is None or request.method != "GET":
            return _error(404, 404, "no Route matched with those values")
        if self._exchange.origin_refused(request):
            return _error(429, "too_many_requests", "Too many API requests.")
        allowance = self._allowances.setdefault((request.remote or "", group), _Allowance())
        refused = self._refused(allowance)
        if refused is not None:
            return refused
        left = _PER_S - -(-len(allowance.times) // second_s())
        headers = {"Remaining-Req": f"group={group}; min=600; sec={max(0, int(left))}", "Limit-By-Ip": "Yes"}
        if universe is not None:
            self._listed = self._listed or UpbitListed(universe)
            try:
                text = encoded(self._listed.answer(request.path, request.query, wall_ns()))
            except RestError as error:
                return _error(error.status, error.name, error.message, headers)
            return web.Response(text=text, content_type="application/json", charset="utf-8", headers=headers)
        match request.path:
            case "/v1/market/all":
                return _json(self._markets(request.query.get("is_details", "false") == "true"), headers)
            case "/v1/ticker":
                # REST accepts lower-case markets; one unknown market fails the whole call.
                codes = [code.upper() for code in request.query.get("markets", "").split(",") if code]
                if not codes or any(code not in self._exchange.pairs for code in codes):
                    return _error(404, 404, "Code not found")
                return _json(self._tickers(codes), headers)
            case _:
                quotes = request.query.get("quote_currencies", "").upper().split(",")
                return _json(self._tickers([code for code in self._exchange.pairs if code.split("-")[0] in quotes]), headers)

    def _refused(self, allowance: _Allowance) -> web.Response | None:
        now = mono_s()
        if now < allowance.blocked_until_s:
            return _blocked(allowance.blocked_until_s - now)
        while allowance.times and now - allowance.times[0] >= second_s():
            allowance.times.popleft()
        if len(allowance.times) < _PER_S * second_s() and self._exchange.faults.find("rate_limit") is None:
            allowance.times.append(now)
            allowance.refusals = 0
            return None
        allowance.refusals += 1
        if allowance.refusals > _PATIENCE:
            allowance.refusals = 0
            allowance.blocked_until_s = now + _BLOCK_S * 2**allowance.blocks
            allowance.blocks += 1
            return _blocked(allowance.blocked_until_s - now)
        return _error(429, "too_many_requests", "Too many API requests.")

    def _markets(self, details: bool) -> list[dict[str, Any]]:
        out = []
        for code in self._exchange.pairs:
            row: dict[str, Any] = {"market": code, "korean_name": code.split("-")[1], "english_name": code.split("-")[1]}
            if details:
                row["market_event"] = {"warning": False, "caution": dict.fromkeys(_EVENTS, False)}
            out.append(row)
        return out

    def _tickers(self, codes: list[str]) -> list[str]:
        return [_ticker(self._exchange.symbol("crypto", code)) for code in codes]


def _ticker(s: Symbol) -> str:
    """Return one ticker row as JSON text, exact to the last decimal."""
    change = s.price - s.prev_close
    rate = change / s.prev_close if s.prev_close else 0.0
    second = s.trade_ns // 10**9
    utc, kst = time.gmtime(second), time.gmtime(second + 9 * 3600)
    turnover = fixed(s.value // 10**8)
    word = "RISE" if change > 0 else "FALL" if change < 0 else "EVEN"
    return (
        f'{{"market":"{s.code}","trade_date":"{time.strftime("%Y%m%d", utc)}","trade_time":"{time.strftime("%H%M%S", utc)}",'
        f'"trade_date_kst":"{time.strftime("%Y%m%d", kst)}","trade_time_kst":"{time.strftime("%H%M%S", kst)}",'
        f'"trade_timestamp":{s.trade_ns // 10**6},"opening_price":{fixed(s.open)},"high_price":{fixed(s.high)},'
        f'"low_price":{fixed(s.low)},"trade_price":{fixed(s.price)},"prev_closing_price":{fixed(s.prev_close)},"change":"{word}",'
        f'"change_price":{fixed(abs(change))},"change_rate":{abs(rate):.10f},"signed_change_price":{fixed(change)},'
        f'"signed_change_rate":{rate:.10f},"trade_volume":{fixed(s.size)},"acc_trade_price":{turnover},'
        f'"acc_trade_price_24h":{turnover},"acc_trade_volume":{fixed(s.acc)},"acc_trade_volume_24h":{fixed(s.acc)},'
        f'"highest_52_week_price":{fixed(s.prev_close * 17 // 10)},"highest_52_week_date":"2025-10-09",'
        f'"lowest_52_week_price":{fixed(s.prev_close * 6 // 10)},"lowest_52_week_date":"2026-02-06","timestamp":{wall_ns() // 10**6}}}'
    )


def _json(rows: list[Any], headers: dict[str, str]) -> web.Response:
    """Answer with rows that are JSON text already, or values."""
    text = ",".join(row if isinstance(row, str) else json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in rows)
    return web.Response(text=f"[{text}]", content_type="application/json", charset="utf-8", headers=headers)


def _error(status: int, name: int | str, message: str, headers: dict[str, str] | None = None) -> web.Response:
    text = json.dumps({"error": {"name": name, "message": message}}, ensure_ascii=False, separators=(",", ":"))
    return web.Response(text=text, status=status, content_type="application/json", charset="utf-8", headers=headers)


def _blocked(seconds: float) -> web.Response:
    return _error(418, "blocked", f"This IP is blocked for {int(seconds) + 1} seconds.")
