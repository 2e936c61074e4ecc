"""What is measured of the machine: CPU and memory of the host, and over the last seconds the latency of the archive's own flushes."""

from __future__ import annotations

import math
from collections import deque
from typing import Final

import psutil

from obs.pressure.mitigation import Measured

_NS: Final = 1_000_000_000
SPAN_NS: Final = 10 * _NS  # CPU and disk latency are means over so long: one busy second among calm ones is no pressure


class Gauge:
    """Measures when asked, about once a second. Keeps the last SPAN_NS of counts to take means of."""

    def __init__(self) -> None:
        self._counts: deque[tuple[int, float, float, int, int]] = deque()

    def measure(self, now_ns: int, flushes: int, flush_ns: int, queue_ns: int) -> Measured:
        """Return the figures of now. `now_ns`: monotonic. `flushes`, `flush_ns`: what the archive writer has counted in all.

        `queue_ns`: age of the oldest record that it has not made durable. CPU is NaN at the first call; a span without a flush has no
        latency to speak of (0): nothing was there to write, or the queue delay tells.
        """
        times = psutil.cpu_times()
        idle = times.idle + getattr(times, "iowait", 0.0)
        total = sum(times[:8])  # without guest times, which are in user already
        if self._counts and (flushes < self._counts[-1][3] or flush_ns < self._counts[-1][4]):
            self._counts.clear()  # an archive writer that has begun anew counts from 0
        self._counts.append((now_ns, idle, total, flushes, flush_ns))
        while len(self._counts) > 2 and self._counts[1][0] <= now_ns - SPAN_NS:
            self._counts.popleft()
        _, idle_then, total_then, flushes_then, flush_ns_then = self._counts[0]
        passed, wrote = total - total_then, flushes - flushes_then
        cpu = 1.0 - (idle - idle_then) / passed if passed > 0 else math.nan
        disk_s = (flush_ns - flush_ns_then) / wrote / _NS if wrote else 0.0
        return Measured(min(max(cpu, 0.0), 1.0), psutil.virtual_memory().percent / 100.0, disk_s, queue_ns / _NS)
