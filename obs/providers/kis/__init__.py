"""KIS (Korea Investment & Securities): Korean and US stocks. Text messages, fields joined by `^`, several records in one."""

from obs.providers.kis.provider import KisProvider

__all__ = ["KisProvider"]
