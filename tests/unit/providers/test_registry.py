"""The registry, and what holds for every provider that it names."""

from __future__ import annotations

import pytest
from cases import CASES

from obs.errors import ConfigError
from obs.providers import base
from obs.providers.base import Provider, ProviderOptions
from obs.providers.registry import PROVIDERS, make_provider
from obs.record.schema import INPUT, INPUT_QUOTE, INPUT_TICKER, INPUT_TRADE


def test_every_type_has_a_case() -> None:
    assert {case.provider.type for case in CASES} == set(PROVIDERS)


def test_an_unknown_type_is_refused() -> None:
    with pytest.raises(ConfigError, match="kis, upbit"):
        make_provider("nyse", ProviderOptions("x", "us_stocks", "us", ("trade",), 41, "", ""))


def test_the_channel_of_an_input_is_that_of_its_kind() -> None:
    assert [base.CHANNELS[kind] for kind in (INPUT_TRADE, INPUT_QUOTE, INPUT_TICKER)] == ["trade", "book", "ticker"]
    assert INPUT.itemsize == base.INPUT_BYTES == base.INPUT_STRUCT.size


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_what_a_role_reads_is_there(case: object) -> None:
    provider: Provider = case.provider  # type: ignore[attr-defined]
    limits = provider.limits
    assert limits.mute_s > 0
    assert limits.confirm_s > 0
    assert provider.confirmation in ("ack", "first_frame")
    sent = provider.subscribe([("trade", case.symbols[0])], "t")  # type: ignore[attr-defined]
    assert [one.covers for one in sent] == [(("trade", case.symbols[0]),)]  # type: ignore[attr-defined]
    assert len(provider.record_symbol(case.symbols[0])) <= 20  # type: ignore[attr-defined]
