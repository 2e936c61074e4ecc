"""The KIS provider: joins protocol, symbols, decoding, control and credentials behind obs.providers.base.Provider."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal
from urllib.parse import urlsplit

import numpy as np
import orjson

from obs.providers.base import (
    Approval,
    Auth,
    Call,
    Context,
    Control,
    Credential,
    Limits,
    Outgoing,
    ProviderOptions,
    Request,
    RestLimits,
    Token,
    check_options,
)
from obs.providers.kis import auth, control, decode, rest, symbols
from obs.providers.kis import protocol as p
from obs.providers.kis.options import limits_of
from obs.record.instruments import Instrument
from obs.record.quotes import Candle


class KisProvider:
    """See obs.providers.base.Provider. Each (channel, symbol) pair is one registration and one message."""

    type = "kis"
    confirmation: Literal["ack", "first_frame"] = "ack"
    replaces = False
    needs_credential = True

    def __init__(self, options: ProviderOptions) -> None:
        """Raises ConfigError: no such market, venue or channel here, or a setting that is not one."""
        markets: dict[str, list[str]] = {}
        for market, venue in p.TR_IDS:
            markets.setdefault(market, []).append(venue)
        check_options(options, markets, tuple(p.TR_IDS.get((options.market, options.venue), ("trade", "book"))))
        self.options = options
        self.limits: Limits
        self.rest: RestLimits
        self.limits, self._spacing_s, self.rest = limits_of(options)
        self._master_url = str(options.options.get("master_url") or p.MASTER_URL)
        self._tr_ids = p.TR_IDS[options.market, options.venue]

    def slot_symbol(self, text: str) -> str:
        return symbols.slot_symbol(self.options.market, text)

    def record_symbol(self, symbol: str) -> str:
        return symbols.record_symbol(symbol)

    def registrations(self, symbols: int) -> int:
        return symbols * len(self.options.channels)

    def connect_url(self) -> str:
        parts = urlsplit(self.options.ws_url)
        return self.options.ws_url if parts.path.strip("/") else parts._replace(path=p.WS_PATH).geturl()

    def context(self, symbols_: Sequence[str]) -> Context:
        rows = {symbols.key_of(symbol).encode(): row for row, symbol in enumerate(symbols_, 1) if symbol}
        return decode.KisContext(rows, tuple(self._tr_ids.values()))

    def classify(self, payload: bytes | memoryview) -> Literal["data", "control"]:
        return "control" if payload[:1] == b"{" else "data"

    decode_many = staticmethod(decode.decode_many)
    decode = staticmethod(decode.decode)

    def control(self, payload: bytes | memoryview) -> list[Control]:
        return control.read_control(bytes(payload), self.options.market)

    def subscribe(self, pairs: Sequence[tuple[str, str]], token: str) -> list[Outgoing]:
        return [self._registration(p.TR_REGISTER, channel, symbol, token) for channel, symbol in pairs]

    def unsubscribe(self, pairs: Sequence[tuple[str, str]], token: str) -> list[Outgoing]:
        return [self._registration(p.TR_UNREGISTER, channel, symbol, token) for channel, symbol in pairs]

    def _registration(self, tr_type: str, channel: str, symbol: str, token: str) -> Outgoing:
        message = {
            "header": {"approval_key": token, "custtype": p.CUSTTYPE_PERSON, "tr_type": tr_type, "content-type": "utf-8"},
            "body": {"input": {"tr_id": self._tr_ids[channel], "tr_key": symbols.key_of(symbol)}},
        }
        return Outgoing(orjson.dumps(message), True, self._spacing_s, ((channel, symbol),))

    def approval_request(self, credential: Credential) -> Request | None:
        return auth.approval_request(self.options.rest_url, credential)

    def parse_approval(self, status: int, body: bytes) -> Approval:
        return auth.parse_approval(status, body)

    def token_request(self, credential: Credential) -> Request | None:
        return auth.token_request(self.options.rest_url, credential)

    def parse_token(self, status: int, body: bytes, now_ns: int) -> Token:
        return auth.parse_token(status, body, now_ns)

    def universe_calls(self, day: int) -> list[Call]:
        return rest.universe_calls(self._master_url) if self.rest.selects else []

    def parse_universe(self, bodies: Sequence[bytes]) -> list[Instrument]:
        return rest.parse_universe(bodies)

    def quote_calls(self, symbols: Sequence[str], auth: Auth | None) -> list[Call]:
        return rest.quote_calls(self.options, symbols, _signed(auth), self.rest.quote_symbols)

    def parse_quotes(self, body: bytes, symbols: Sequence[str]) -> np.ndarray:
        return rest.parse_quotes(body, symbols)

    def candle_call(self, symbol: str, bar_ns: int, auth: Auth | None) -> Call:
        return rest.candle_call(self.options, symbol, bar_ns, _signed(auth))

    def parse_candle(self, body: bytes, bar_ns: int) -> Candle | None:
        return rest.parse_candle(body, bar_ns)

    def holiday_call(self, day: int, auth: Auth | None) -> Call | None:
        return rest.holiday_call(self.options, day, _signed(auth))

    def parse_holidays(self, body: bytes) -> dict[int, bool]:
        return rest.parse_holidays(body)

    def judge(self, status: int, headers: Mapping[str, str], body: bytes) -> float:
        return rest.judge(status, headers, body)


def _signed(auth: Auth | None) -> Auth:
    if auth is None:
        raise ValueError("a data call of KIS needs a token")
    return auth
