"""The Upbit provider: joins protocol, symbols, decoding and control behind obs.providers.base.Provider."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Literal
from urllib.parse import urlsplit

import numpy as np
import orjson

from obs.errors import ConnectionLost, DecodeError
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
    decode_each,
)
from obs.providers.upbit import control, decode, rest, symbols
from obs.providers.upbit import protocol as p
from obs.providers.upbit.markets import parse_markets
from obs.providers.upbit.options import limits_of
from obs.record.instruments import Instrument
from obs.record.quotes import Candle


class UpbitProvider:
    """See obs.providers.base.Provider. One request names everything wanted and replaces what was; nothing acknowledges it.

    A code that is wrong is ignored without a word: what yields no first frame within `limits.confirm_s` has failed. There is
    no request for nothing: with no pair left, close the connection.
    """

    type = "upbit"
    confirmation: Literal["ack", "first_frame"] = "first_frame"
    replaces = True
    needs_credential = False

    def __init__(self, options: ProviderOptions) -> None:
        """Raises ConfigError: no such market, venue or channel here, or a setting that is not one."""
        check_options(options, {"crypto": p.VENUES}, tuple(p.TYPES))
        self.options = options
        self.limits: Limits
        self.rest: RestLimits
        self.limits, self._depth, self.rest = limits_of(options)

    def slot_symbol(self, text: str) -> str:
        return symbols.slot_symbol(text)

    def record_symbol(self, symbol: str) -> str:
        return symbol

    def registrations(self, symbols: int) -> int:
        return symbols * len(self.options.channels)

    def connect_url(self) -> str:
        parts = urlsplit(self.options.ws_url)
        return self.options.ws_url if parts.path.strip("/") else parts._replace(path=p.WS_PATH).geturl()

    def context(self, symbols: Sequence[str]) -> Context:
        return decode.UpbitContext({symbol.encode(): row for row, symbol in enumerate(symbols, 1) if symbol})

    def classify(self, payload: bytes | memoryview) -> Literal["data", "control"]:
        return "control" if control.is_control(payload) else "data"

    decode_many = staticmethod(partial(decode_each, decode.decode))
    decode = staticmethod(decode.decode)

    def control(self, payload: bytes | memoryview) -> list[Control]:
        return control.read_control(bytes(payload))

    def subscribe(self, pairs: Sequence[tuple[str, str]], token: str) -> list[Outgoing]:
        if not pairs:
            return []
        request: list[dict[str, object]] = [{"ticket": token or self.options.name}]
        for channel, type_name in p.TYPES.items():
            suffix = f".{self._depth}" if channel == "book" else ""
            codes = [symbol + suffix for wanted, symbol in pairs if wanted == channel]
            if codes:
                request.append({"type": type_name, "codes": codes})
        request.append({"format": p.FORMATS[0]})
        # Source: the tighter of the two message limits, so that no number of changes in a row can break it.
        spacing_s = 60.0 / p.MESSAGES_PER_MINUTE
        return [Outgoing(orjson.dumps(request), True, spacing_s, tuple(pairs))]

    def unsubscribe(self, pairs: Sequence[tuple[str, str]], token: str) -> list[Outgoing]:
        return []

    def approval_request(self, credential: Credential) -> Request | None:
        return None

    def parse_approval(self, status: int, body: bytes) -> Approval:
        raise ConnectionLost("public market data needs no key", status=status)

    def token_request(self, credential: Credential) -> Request | None:
        return None

    def parse_token(self, status: int, body: bytes, now_ns: int) -> Token:
        raise ConnectionLost("public market data needs no token", status=status)

    def universe_calls(self, day: int) -> list[Call]:
        return rest.universe_calls(self.options) if self.rest.selects else []

    def parse_universe(self, bodies: Sequence[bytes]) -> list[Instrument]:
        markets, tickers = bodies
        return parse_markets(markets, tickers)

    def quote_calls(self, symbols: Sequence[str], auth: Auth | None) -> list[Call]:
        return rest.quote_calls(self.options, symbols, self.rest.quote_symbols)

    def parse_quotes(self, body: bytes, symbols: Sequence[str]) -> np.ndarray:
        return rest.parse_quotes(body, symbols)

    def candle_call(self, symbol: str, bar_ns: int, auth: Auth | None) -> Call:
        return rest.candle_call(self.options, symbol, bar_ns)

    def parse_candle(self, body: bytes, bar_ns: int) -> Candle | None:
        return rest.parse_candle(body, bar_ns)

    def holiday_call(self, day: int, auth: Auth | None) -> Call | None:
        return None

    def parse_holidays(self, body: bytes) -> dict[int, bool]:
        raise DecodeError("this venue has no calendar", length=len(body))

    def judge(self, status: int, headers: Mapping[str, str], body: bytes) -> float:
        return rest.judge(status, headers, body)
