"""Configuration: one TOML file to one frozen, wholly checked `Config`.

Input: the file, the environment as a mapping, the command line's overrides. Output: `Config`, or ConfigError with every
problem at once. kinds.py reads one value, options.py holds all keys and defaults, venues.py the defaults by provider type,
load.py the file and the checks between keys, credentials.py the secrets and what a start needs, demo.py the simulated pair.
Invariant: nothing here reads the process's environment or a clock; a `Config` crosses to children by pickle.
Imports obs.errors alone.
"""

from __future__ import annotations

from obs.config.credentials import read_secrets, require_start, start_problems
from obs.config.demo import demo_config, demo_environ
from obs.config.load import config_hash, load
from obs.config.options import Config, ProviderConfig

__all__ = [
    "Config",
    "ProviderConfig",
    "config_hash",
    "demo_config",
    "demo_environ",
    "load",
    "read_secrets",
    "require_start",
    "start_problems",
]
