"""The provider that a specification names: apart from the feed, so that poll does not load what only a feed needs."""

from __future__ import annotations

from obs.config.process import ProcessSpec
from obs.providers.base import Provider, ProviderOptions
from obs.providers.registry import make_provider


def provider_of(spec: ProcessSpec) -> Provider:
    """Return the provider of `spec`, made from its configuration."""
    config = spec.provider
    assert config is not None
    return make_provider(
        config.type,
        ProviderOptions(
            config.name, config.market, config.venue, config.channels, config.slots, config.rest_url, config.ws_url,
            config.provider_options(),
        ),
    )
