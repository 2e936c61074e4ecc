"""Upbit: crypto spot in Korea, Singapore, Indonesia, Thailand. JSON in binary frames, one input per message."""

from obs.providers.upbit.provider import UpbitProvider

__all__ = ["UpbitProvider"]
