"""The KIS provider: joins protocol, symbols, decoding, control and credentials behind obs.providers.base.Provider."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal
from urllib.parse import urlsplit

import orjson

from obs.providers.base import (
    Approval,
    Context,
    Control,
    Credential,
    Limits,
    Outgoing,
    ProviderOptions,
    Request,
    Token,
    check_options,
)
from obs.providers.kis import auth, control, decode, symbols
from obs.providers.kis import protocol as p
from obs.providers.kis.options import limits_of


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
        self.limits, self._spacing_s = limits_of(options)
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
