"""What a KIS section may set beyond the common keys; every limit of the venue is a setting, because notices change them.

registrations       41      registrations of one connection, over all channels
register_spacing_s  0.05    pause after each registration; 0.5 on the paper server
confirm_s           10      wait for the answer to a registration
mute_s              90      silence of any kind after which a connection is dead
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from obs.providers.base import Limits, ProviderOptions, settings_of
from obs.providers.kis import protocol as p

_PONG_TIMEOUT_S: Final = 10.0  # Source: ours; unused, because KIS is not pinged: it pings, with a text


def limits_of(options: ProviderOptions) -> tuple[Limits, float]:
    """Return the limits of one connection and the pause after each registration. Raises ConfigError."""
    is_paper = urlsplit(options.ws_url).port == p.PAPER_WS_PORT
    spacing_s = p.REGISTER_SPACING_PAPER_S if is_paper else p.REGISTER_SPACING_S
    defaults = {"registrations": p.REGISTRATIONS, "register_spacing_s": spacing_s, "confirm_s": p.CONFIRM_S, "mute_s": p.MUTE_S}
    values = settings_of(options, defaults)
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
    return limits, values["register_spacing_s"]
