"""What the machine allows each process, judged before anything starts: less would show later, as children that die again and again.

| limit | least | why |
|---|---|---|
| RLIMIT_NOFILE | 16 + per provider 8 + 5 x [ring] max_sessions | each mapped ring of each undrained session keeps a descriptor |
| RLIMIT_DATA | 192 MiB | private memory and stacks of the largest role, a feed: 150 MiB; rings are shared and do not count |

Below some 110 MiB of RLIMIT_DATA not even the libraries load: then Python's own MemoryError, or OpenBLAS, is the refusal.
RLIMIT_AS is not judged: it counts libraries and rings, which cost nothing, so no number is right everywhere. A control group's
limit is for all processes together.
"""

from __future__ import annotations

import resource
from typing import Final

from obs.errors import ConfigError

DATA_BYTES: Final = 192 << 20
_OWN_FILES: Final = 16
_PROVIDER_FILES: Final = 8  # board, counters, locks, pipes, the stacks of its processes
_SESSION_FILES: Final = 5  # its rings


def files_needed(providers: int, max_sessions: int) -> int:
    """Return how many descriptors the largest process needs."""
    return _OWN_FILES + providers * (_PROVIDER_FILES + _SESSION_FILES * max_sessions)


def require_limits(providers: int, max_sessions: int) -> None:
    """Raise ConfigError, all problems in one list, if this process's limits, which its children inherit, are too low."""
    problems = []
    files, need = resource.getrlimit(resource.RLIMIT_NOFILE)[0], files_needed(providers, max_sessions)
    if files != resource.RLIM_INFINITY and files < need:
        problems.append(f"open files: limit={files} need={need}: raise it (ulimit -n, LimitNOFILE=)")
    data = resource.getrlimit(resource.RLIMIT_DATA)[0]
    if data != resource.RLIM_INFINITY and data < DATA_BYTES:
        problems.append(f"memory of a process: limit={data} need={DATA_BYTES}: raise it (ulimit -d, LimitDATA=)")
    if problems:
        raise ConfigError("this machine's limits are too low", problems=problems)
