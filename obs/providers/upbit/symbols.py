"""Symbols of Upbit: `QUOTE-BASE` such as `KRW-BTC`, the same in configuration, requests, messages and records.

PROVIDER_SPECIFIC: order book codes may end in `.1`, `.5`, `.15`, `.30` (number of levels), in requests and answers.
"""

from __future__ import annotations

import re
from typing import Final

from obs.errors import ConfigError

# Source: documentation, trading pairs. Lower case is ignored by the socket without a word, so it is refused here.
SYMBOL: Final = re.compile(r"[A-Z]{3,5}-[A-Z0-9]{1,14}")
_DEPTH: Final = re.compile(r"\.(?:1|5|15|30)\Z")


def slot_symbol(text: str) -> str:
    """Return `text` if it is a code. Raises ConfigError."""
    if not SYMBOL.fullmatch(text):
        raise ConfigError(f"symbol = {text!r}: not an Upbit code; QUOTE-BASE in upper case, such as KRW-BTC", symbol=text)
    return text


def without_depth(code: str) -> str:
    """Return the code of a message without its number of levels."""
    return _DEPTH.sub("", code)
