"""What an Upbit section may set beyond the common keys.

depth           1   levels of an order book: 1, 5, 15 or 30
confirm_s       5   wait for the first frame of a subscription
mute_s         30  silence of any kind, pongs included, after which a connection is dead
calls_per_s     8  REST calls a second in each group, evenly spaced
quote_symbols 100  pairs of one order book call
"""

from __future__ import annotations

from obs.errors import ConfigError
from obs.providers.base import Limits, ProviderOptions, RestLimits, settings_of
from obs.providers.upbit import protocol as p
from obs.providers.upbit import rest


def limits_of(options: ProviderOptions) -> tuple[Limits, int, RestLimits]:
    """Return the limits of one connection, the depth of books, and the limits of the REST side. Raises ConfigError."""
    defaults = {
        "depth": 1, "confirm_s": p.CONFIRM_S, "mute_s": p.MUTE_S, "calls_per_s": p.CALLS_PER_S, "quote_symbols": p.QUOTE_SYMBOLS,
    }  # fmt: skip
    values = settings_of(options, defaults, texts=("master_url",))  # a key of every section; it means something to KIS alone
    if values["depth"] not in p.DEPTHS:
        problem = f"providers.{options.name}.depth = {values['depth']!r}: one of {p.DEPTHS}"
        raise ConfigError("provider options are wrong", problems=[problem])
    limits = Limits(
        registrations=None,
        connect_spacing_s=p.CONNECT_SPACING_S,
        messages_per_s=p.MESSAGES_PER_S,
        messages_per_minute=p.MESSAGES_PER_MINUTE,
        ping_every_s=p.PING_EVERY_S,
        pong_timeout_s=p.PONG_TIMEOUT_S,
        mute_s=values["mute_s"],
        confirm_s=values["confirm_s"],
        approval_spacing_s=0.0,
        token_spacing_s=0.0,
        in_use_backoff_s=(),
    )
    rest_limits = RestLimits(
        calls_per_s=dict.fromkeys(rest.GROUPS, values["calls_per_s"]),
        quote_symbols=max(1, int(values["quote_symbols"])),
        candle_group=rest.CANDLE_GROUP,
        needs_token=False,
        selects=options.venue == p.UNIVERSE_VENUE,
    )
    return limits, int(values["depth"]), rest_limits
