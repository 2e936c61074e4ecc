"""Simulated exchanges: a venue's real protocol, WebSocket and REST, on one loopback port, with scripted faults.

`python -m obs.sim kis|upbit --port P --source numbered|model|recordings --rate R --seed N …` stands in for the venue in
the demo, in tests and in benchmarks. Input: options, a script of faults, and (for one source) a folder of recordings.
Output: the protocol, one JSON line on stdout when it listens, and a log of everything that was sent.

With `--universe N` the venue lists N symbols, each a function of seed, symbol and time (universe.py), answers all of REST that a
collector of them needs, and follows a scenario; its time may run faster than ours (now.py), so that a day passes in minutes.

Invariants: a log line is written to its file before the frame that it speaks of is handed to the transport, so what a
client received is always logged; the market goes on whether or not somebody listens; the same seed gives the same market.

Nothing in obs imports this room; the supervisor starts it by name. It imports obs.errors and obs.clock, and must not
import obs.providers: two readings of the venue's documents check each other.
"""

from __future__ import annotations

__all__: list[str] = []
