"""What an Upbit section may set beyond the common keys.

depth      1   levels of an order book: 1, 5, 15 or 30
confirm_s  5   wait for the first frame of a subscription
mute_s     30  silence of any kind, pongs included, after which a connection is dead
"""

from __future__ import annotations

from obs.errors import ConfigError
from obs.providers.base import Limits, ProviderOptions, settings_of
from obs.providers.upbit import protocol as p


def limits_of(options: ProviderOptions) -> tuple[Limits, int]:
    """Return the limits of one connection and the depth of books. Raises ConfigError."""
    values = settings_of(options, {"depth": 1, "confirm_s": p.CONFIRM_S, "mute_s": p.MUTE_S})
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
    return limits, int(values["depth"])
