"""What a KIS section may set beyond the common keys; every limit of the venue is a setting, because notices change them.

registrations       41      registrations of one connection, over all channels
register_spacing_s  0.05    pause after each registration; 0.5 on the paper server
confirm_s           10      wait for the answer to a registration
mute_s              90      silence of any kind after which a connection is dead
calls_per_s         15      REST calls a second, evenly spaced; 0.9 on the paper server
quote_symbols       30      issues of one quote call
master_url          …       folder of the master files, where they are not the venue's own
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from obs.providers.base import Limits, ProviderOptions, RestLimits, settings_of
from obs.providers.kis import protocol as p
from obs.providers.kis import rest

_PONG_TIMEOUT_S: Final = 10.0  # Source: ours; unused, because KIS is not pinged: it pings, with a text


def limits_of(options: ProviderOptions) -> tuple[Limits, float, RestLimits]:
    """Return the limits of one connection, the pause after each registration, and the limits of the REST side. Raises ConfigError."""
    is_paper = urlsplit(options.ws_url).port == p.PAPER_WS_PORT
    spacing_s = p.REGISTER_SPACING_PAPER_S if is_paper else p.REGISTER_SPACING_S
    is_paper_rest = urlsplit(options.rest_url).port == p.PAPER_REST_PORT
    defaults = {
        "registrations": p.REGISTRATIONS, "register_spacing_s": spacing_s, "confirm_s": p.CONFIRM_S, "mute_s": p.MUTE_S,
        "calls_per_s": p.CALLS_PER_S_PAPER if is_paper_rest else p.CALLS_PER_S, "quote_symbols": p.QUOTE_SYMBOLS,
    }  # fmt: skip
    values = settings_of(options, defaults, texts=("master_url",))
    limits = Limits(
        registrations=int(values["registrations"]),
        connect_spacing_s=p.CONNECT_SPACING_S,
        messages_per_s=1.0 / max(values["register_spacing_s"], 0.001),
        messages_per_minute=None,
        ping_every_s=None,
        pong_timeout_s=_PONG_TIMEOUT_S,
        mute_s=values["mute_s"],
        confirm_s=values["confirm_s"],
        approval_spacing_s=p.APPROVAL_SPACING_S,
        token_spacing_s=p.TOKEN_SPACING_S,
        in_use_backoff_s=p.IN_USE_BACKOFF_S,
    )
    rest_limits = RestLimits(
        calls_per_s={rest.GROUP: values["calls_per_s"], rest.MASTER_GROUP: p.MASTERS_PER_S},
        quote_symbols=min(int(values["quote_symbols"]), p.QUOTE_SYMBOLS) or 1,
        candle_group=rest.GROUP,
        needs_token=True,
        # Source: portal: the paper server has no call for the quotes of many issues.
        selects=options.market == "kr_stocks" and options.venue in p.REST_MARKETS and not is_paper_rest,
    )
    return limits, values["register_spacing_s"], rest_limits
