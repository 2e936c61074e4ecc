"""The contract of a provider: the values that pass between it, the wire and the role that joins them.

A Provider is made once per configuration section (obs/providers/registry.py) from its options and holds no other state.
What decoding needs to know of the moment is in a Context, one per connection. Symbols are spelled as in the
configuration ("slot symbols"); `record_symbol` gives the spelling that records carry, which differs where a venue needs
more than the symbol to subscribe (KIS overseas).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, Protocol

import numpy as np

from obs.errors import ConfigError, DecodeError
from obs.record.instruments import Instrument
from obs.record.quotes import Candle
from obs.record.schema import IGNORED, INPUT, struct_format

MAX_INPUTS_PER_MESSAGE: Final = 1024  # rows that `decode` may write for one message
MAX_MESSAGE_BYTES: Final = 1 << 20  # a longer one is refused unread
_MUCH: Final = 16  # bad messages or spans: kept, they have at most 1 MiB, a quarter of the smallest quarantine ring

# The generic channels of the configuration. INPUT.kind is an index into them: the first input of (kind, symbol) proves
# that (channel, symbol) is subscribed.
CHANNELS: Final = ("trade", "book", "ticker")

INPUT_STRUCT: Final = struct.Struct(struct_format(INPUT))
INPUT_BYTES: Final = INPUT.itemsize
UNKNOWN_ROW: Final = 0
IGNORE_SNAPSHOT: Final = IGNORED.index("snapshot")
IGNORE_EXPECTED: Final = IGNORED.index("expected")
IGNORE_UNKNOWN_SYMBOL: Final = IGNORED.index("unknown_symbol")
NAN: Final = float("nan")


class Fault(NamedTuple):
    """Bytes [start, stop) of a payload that could not be read: one input, ignored as malformed. `reason` is short and stable."""

    start: int
    stop: int
    reason: str


# Place of a message, and what could not be read of it: some spans, or nothing at all.
Bad = tuple[int, list[Fault] | DecodeError]


class Taken(NamedTuple):
    """What Provider.decode_many has done: messages taken, the first ones; inputs written; what was bad, in order."""

    messages: int
    inputs: int
    bad: list[Bad]


@dataclass(frozen=True, slots=True)
class ProviderOptions:
    """What a provider needs of its configuration section. `options`: settings of the type, each with a default in it."""

    name: str
    market: str
    venue: str
    channels: tuple[str, ...]
    slots: int
    rest_url: str
    ws_url: str
    options: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Credential:
    """An app key and its secret; `name` is the environment prefix and the only part that may be shown."""

    name: str
    key: str = field(repr=False)
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Request:
    """An HTTP request to make. Headers and body may hold secrets and stay out of its repr."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Approval:
    """A key that authenticates one WebSocket connection."""

    key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Token:
    """A REST access token; `expires_ns`: UTC epoch."""

    value: str = field(repr=False)
    expires_ns: int


@dataclass(frozen=True, slots=True)
class Limits:
    """What the venue allows, and what silence means. None: the venue states no such limit.

    `registrations`: per connection, over all channels; the venue may refuse earlier (Control kind "limit"), then the number
    confirmed so far is the learned limit. `mute_s`: a connection on which nothing at all came for that long is dead.
    `in_use_backoff_s`: waits after Control kind "in_use", the last one repeated, each with jitter.
    """

    registrations: int | None
    connect_spacing_s: float
    messages_per_s: float
    messages_per_minute: float | None
    ping_every_s: float | None
    pong_timeout_s: float
    mute_s: float
    confirm_s: float
    approval_spacing_s: float
    token_spacing_s: float
    in_use_backoff_s: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to send, then a pause of `spacing_s`. `covers`: the (channel, slot symbol) pairs that it asks for."""

    payload: bytes = field(repr=False)  # may hold the approval key
    text: bool
    spacing_s: float
    covers: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Auth:
    """What a data call of the REST side is signed with."""

    credential: Credential
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Call:
    """A REST call to make. `group`: the venue's limiter group that it counts in. `symbols`: record symbols that it asks about."""

    request: Request
    group: str
    symbols: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RestLimits:
    """What the REST side of a venue allows. Symbols have no slot spelling here: where there is a universe, both spellings are one.

    `calls_per_s`: by limiter group, evenly spaced calls that stay under the venue's own limit. `quote_symbols`: the most that one quote
    call asks about. `candle_group`: the group of candle calls. `needs_token`: data calls want an Auth. `selects`: there is a
    universe to select from (universe_calls, quote_calls); with False the section must list its symbols.
    """

    calls_per_s: Mapping[str, float]
    quote_symbols: int
    candle_group: str
    needs_token: bool
    selects: bool


ControlKind = Literal["ack", "refused", "ping", "error", "status", "limit", "auth", "in_use"]


@dataclass(frozen=True, slots=True)
class Control:
    """One control message, classed by what the role can do.

    ack: (channel, symbol) is now registered, or with `registered` False no longer. refused: it is not; ask again later
    if `retry`, else never with this configuration. limit: as refused, and no further registration fits. auth: the
    approval key is not accepted, fetch a new one once. in_use: another session holds the credential, back off long.
    ping: send `reply` as text at once. error: the request was wrong. status: good news, nothing to do.
    `fatal`: the venue closes the connection after it, or it is of no further use. `text` holds no secret.
    """

    kind: ControlKind
    code: str = ""
    text: str = ""
    channel: str = ""
    symbol: str = ""
    reply: bytes | None = None
    registered: bool = False
    retry: bool = False
    fatal: bool = False


class Context:
    """What the decoder of one connection knows of the moment: table rows by venue key, and the place to write to.

    `rows`: the venue's own key of a symbol, as its data messages spell it -> table row (1 …). Not thread-safe.
    """

    __slots__ = ("buffer", "out", "rows")

    def __init__(self, rows: dict[bytes, int]) -> None:
        self.rows = rows
        self.out: np.ndarray | None = None
        self.buffer = memoryview(b"")

    def bind(self, out: np.ndarray) -> memoryview:
        """Return the bytes of `out` ((n,), dtype INPUT, C-contiguous) to pack rows into, and keep them in `buffer`."""
        self.buffer = memoryview(out.view(np.uint8))  # type: ignore[arg-type]  # numpy's stubs name no Buffer before 3.12
        self.out = out
        return self.buffer


class Rest(Protocol):
    """The REST side of a venue: calls to make, and what their answers say. Pure, as all of a Provider.

    An answer goes to `judge` first, with its status and headers, and only what passes is parsed. Every parse raises DecodeError for an
    answer that does not read (HTML, cut off, another shape): the call failed, and may be repeated.
    """

    rest: RestLimits

    def universe_calls(self, day: int) -> list[Call]:
        """Return the calls whose answers, in this order, make the list of everything that is traded on `day` (YYYYMMDD). No Auth."""
        ...

    def parse_universe(self, bodies: Sequence[bytes]) -> list[Instrument]:
        """Return every issue that the venue names, also those that are not to be watched."""
        ...

    def quote_calls(self, symbols: Sequence[str], auth: Auth | None) -> list[Call]:
        """Return the calls that together quote `symbols` (record symbols); several may know different figures of the same symbol."""
        ...

    def parse_quotes(self, body: bytes, symbols: Sequence[str]) -> np.ndarray:
        """Return QUOTE rows (obs.record.quotes), in any order, of `symbols` alone; one that is missing, or has no price, was not quoted."""
        ...

    def candle_call(self, symbol: str, bar_ns: int, auth: Auth | None) -> Call:
        """Return the call for the bar of `symbol` that begins at `bar_ns`, to be made after its end."""
        ...

    def parse_candle(self, body: bytes, bar_ns: int) -> Candle | None:
        """Return that bar, None if nothing was traded in it."""
        ...

    def holiday_call(self, day: int, auth: Auth | None) -> Call | None:
        """Return the call for the venue's own calendar from `day` (YYYYMMDD) on, None if it has none. At most one a day."""
        ...

    def parse_holidays(self, body: bytes) -> dict[int, bool]:
        """Return YYYYMMDD -> whether the market opens on that day."""
        ...

    def judge(self, status: int, headers: Mapping[str, str], body: bytes) -> float:
        """Return the seconds to wait before the next call of the group (0.0: no more than usual) if the answer is good.

        Raises RateLimited (wait_s), TokenExpired, or ConnectionLost: reason "api_error"; "unknown_symbol" where one symbol that the venue
        does not know has cost the whole call, so that it is worth while to ask for fewer. Judged by the body too: an error may come
        with 200. `headers`: names compare without case, or are lower-case.
        """
        ...


class Provider(Rest, Protocol):
    """One venue, one market. Every method is a pure function of its arguments, the options and the Context.

    `confirmation`: how a subscription is known to work: "ack", or "first_frame" (no answer but data within
    `limits.confirm_s`). `replaces`: each subscribe message replaces the whole subscription of the connection.
    """

    type: str
    options: ProviderOptions
    limits: Limits
    confirmation: Literal["ack", "first_frame"]
    replaces: bool
    needs_credential: bool

    def slot_symbol(self, text: str) -> str:
        """Return the one spelling of a configured symbol; ConfigError if this market has no such symbol."""
        ...

    def record_symbol(self, symbol: str) -> str:
        """Return the symbol that records of this slot symbol carry: up to 20 ASCII bytes."""
        ...

    def registrations(self, symbols: int) -> int:
        """Return how many registrations that many symbols cost on all channels of the options."""
        ...

    def connect_url(self) -> str:
        """Return the WebSocket address to open. The handshake carries no Origin header and no credentials."""
        ...

    def context(self, symbols: Sequence[str]) -> Context:
        """Return a fresh Context in which symbols[i] has table row i + 1; an empty text leaves its row unused."""
        ...

    def classify(self, payload: bytes | memoryview) -> Literal["data", "control"]:
        """Say which of `decode` and `control` reads this payload. Cheap; garbage is data."""
        ...

    def decode(self, payload: bytes | memoryview, recv_ns: int, ctx: Context, out: np.ndarray, at: int) -> tuple[int, list[Fault]]:
        """Write the inputs of `payload` to out[at : at + n] and return n and the spans that could not be read.

        `payload`: borrowed, no view of it is kept. `recv_ns`: UTC epoch. `out`: (m,), dtype INPUT, C-contiguous, with room
        for MAX_INPUTS_PER_MESSAGE rows after `at`; what lies behind at + n may have been scribbled on.
        Raises DecodeError if nothing was readable; rows may have been scribbled on then too.
        """
        ...

    def decode_many(self, payloads: Sequence[bytes], recv_ns: Sequence[int], ctx: Context, out: np.ndarray, at: int) -> Taken:
        """Do what `decode` does for each of `payloads` in turn, with its time; what it raises is told in Taken.bad.

        Takes all of them, or the first ones: where `out` may have no room for another, or much of them was bad (is_much), it stops.
        With room for MAX_INPUTS_PER_MESSAGE rows after `at` it takes at least one.
        """
        ...

    def control(self, payload: bytes | memoryview) -> list[Control]:
        """Return what a control payload says. Raises DecodeError if it says nothing known."""
        ...

    def subscribe(self, pairs: Sequence[tuple[str, str]], token: str) -> list[Outgoing]:
        """Return the messages that subscribe (channel, slot symbol) pairs; with `replaces`, `pairs` is the whole set.

        `token`: the approval key, or a unique text where the venue wants only a ticket.
        """
        ...

    def unsubscribe(self, pairs: Sequence[tuple[str, str]], token: str) -> list[Outgoing]:
        """Return the messages that end subscriptions; none with `replaces`: subscribe what is left instead."""
        ...

    def approval_request(self, credential: Credential) -> Request | None:
        """Return the request for the key that the next connection needs, None if it needs none."""
        ...

    def parse_approval(self, status: int, body: bytes) -> Approval:
        """Return the key. Raises AuthRejected (these credentials are wrong) or ConnectionLost (try again later)."""
        ...

    def token_request(self, credential: Credential) -> Request | None:
        """Return the request for a REST token, None if the venue has none."""
        ...

    def parse_token(self, status: int, body: bytes, now_ns: int) -> Token:
        """Return the token. `now_ns`: UTC epoch. Raises as parse_approval."""
        ...


def is_much(bad: Sequence[Bad]) -> bool:
    """Say whether so much could not be read that it should be published before more is: it is kept with its bytes."""
    return len(bad) >= _MUCH or sum(1 if isinstance(what, DecodeError) else len(what) for _, what in bad) >= _MUCH


def decode_each(
    decode: Callable[..., tuple[int, list[Fault]]],
    payloads: Sequence[bytes],
    recv_ns: Sequence[int],
    ctx: Context,
    out: np.ndarray,
    at: int,
) -> Taken:
    """Do decode_many by `decode`, one by one."""
    begin, last = at, len(out) - MAX_INPUTS_PER_MESSAGE
    bad: list[Bad] = []
    for place, payload in enumerate(payloads):
        if at > last or (bad and is_much(bad)):
            return Taken(place, at - begin, bad)
        try:
            written, faults = decode(payload, recv_ns[place], ctx, out, at)
        except DecodeError as error:
            bad.append((place, error))
            continue
        at += written
        if faults:
            bad.append((place, faults))
    return Taken(len(payloads), at - begin, bad)


def check_options(options: ProviderOptions, markets: Mapping[str, Sequence[str]], channels: Sequence[str]) -> None:
    """Raise ConfigError, all problems in one list, unless `options` names a market, venue and channels that exist."""
    problems = []
    venues = markets.get(options.market)
    if venues is None:
        problems.append(f"providers.{options.name}.market = {options.market!r}: one of {', '.join(markets)}")
    elif options.venue not in venues:
        problems.append(f"providers.{options.name}.venue = {options.venue!r}: one of {', '.join(venues)}")
    if not options.channels or not set(options.channels) <= set(channels):
        problems.append(f"providers.{options.name}.channels = {list(options.channels)!r}: some of {', '.join(channels)}")
    if problems:
        raise ConfigError("provider options are wrong", problems=problems)


def figure(value: object, *, positive: bool = False) -> float:
    """Return a number of a REST answer, a JSON number or a text; NaN for what is none, is infinite, below 0, or 0 with `positive`."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return NAN
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return NAN
    return number if 0 <= number < float("inf") and not (positive and number == 0) else NAN


def settings_of(options: ProviderOptions, defaults: Mapping[str, float], texts: Sequence[str] = ()) -> dict[str, float]:
    """Return `defaults` with what `options.options` sets, but for `texts`, which the caller reads.

    Raises ConfigError for an unknown name or what is not a positive number.
    """
    problems = []
    values = dict(defaults)
    for name, value in options.options.items():
        if name in texts and isinstance(value, str):
            continue
        if name not in defaults:
            problems.append(f"providers.{options.name}.{name}: unknown, one of {', '.join(defaults)}")
        elif isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
            problems.append(f"providers.{options.name}.{name} = {value!r}: a positive number")
        else:
            values[name] = value
    if problems:
        raise ConfigError("provider options are wrong", problems=problems)
    return values
