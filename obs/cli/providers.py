"""The names of providers that a command may be asked for. Imports nothing that is slow: the shell asks while somebody types."""

from __future__ import annotations

from obs.config import Config


def known_providers(config: Config) -> list[str]:
    """Return the providers that are configured, or of which the data directory holds anything, sorted."""
    root = config.data_dir
    known = {one.name for one in config.providers}
    known |= {path.name for folder in ("scalp", "swing", "system/events") for path in (root / folder).glob("*") if path.is_dir()}
    known |= {path.stem for folder in ("days", "sessions") for path in (root / "system" / folder).glob("*.jsonl")}
    return sorted(known)
