"""The provider types of this build."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from obs.errors import ConfigError
from obs.providers.base import Provider, ProviderOptions
from obs.providers.kis import KisProvider
from obs.providers.upbit import UpbitProvider

PROVIDERS: Final[dict[str, Callable[[ProviderOptions], Provider]]] = {
    "kis": KisProvider,
    "upbit": UpbitProvider,
}


def make_provider(type_name: str, options: ProviderOptions) -> Provider:
    """Return the provider of one configuration section. Raises ConfigError: unknown type, or options it does not have."""
    try:
        factory = PROVIDERS[type_name]
    except KeyError:
        raise ConfigError(f"providers.{options.name}.type = {type_name!r}: one of {', '.join(PROVIDERS)}") from None
    return factory(options)
