"""What happens in a soak, and when: a pure function of the seed, so that the same seed injects the same faults at the same moments."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from harness import PROVIDERS

from obs.sim.script import VARIANTS

# kind -> how often it is drawn, and how many connects it may cost each provider that it hits
KINDS: Final[dict[str, tuple[int, int]]] = {
    "kill feed": (3, 1),
    "kill archive": (4, 0),
    "kill load": (4, 0),
    "kill poll": (2, 0),
    "kill monitor": (1, 0),
    "kill supervisor": (1, 1),
    "kill everything": (1, 1),
    "kill database": (3, 0),
    "stop feed": (3, 0),
    "stop archive": (3, 0),
    "stop load": (3, 0),
    "stop database": (2, 0),
    "slow fsync": (3, 0),
    "venue drop": (2, 1),
    "venue close": (3, 1),
    "venue rst": (2, 1),
    "venue refuse": (1, 3),
    "venue mute": (3, 0),
    "venue malformed": (5, 0),
    "venue fragment": (3, 0),
    "venue burst": (2, 0),
}
HOST: Final = ("kill supervisor", "kill everything")  # hit both providers; only in the first third, so that some processes live long
# Below the reconnect budget (10, then one a minute): above it a soak would mostly wait.
CONNECTS: Final = 6
CONNECTS_PER_S: Final = 1 / 75
_WHOLE: Final = tuple(variant for variant in VARIANTS if variant not in ("framing", "huge"))


@dataclass(frozen=True)
class Fault:
    """One fault: at this second, of this kind, to this provider ("" = the host), with these facts."""

    at_s: float
    kind: str
    provider: str
    facts: tuple[tuple[str, Any], ...] = ()


def plan(seed: int, seconds: float, every_s: float, without: frozenset[str] = frozenset()) -> list[Fault]:
    """Return the faults of `seconds`, one about every `every_s`, by time. `without`: kinds that this machine cannot inject."""
    draw = random.Random(f"{seed} soak")
    kinds = [kind for kind in KINDS if kind not in without]
    connects = dict.fromkeys(PROVIDERS, 1.0)
    found: list[Fault] = []
    at_s = 0.0
    while (at_s := at_s + every_s * (0.5 + draw.random())) < seconds:
        kind = draw.choices(kinds, [KINDS[kind][0] for kind in kinds])[0]
        provider = draw.choice(PROVIDERS)
        facts = FACTS[kind](draw) if kind in FACTS else {}
        hit = PROVIDERS if kind in HOST else (provider,)
        cost = KINDS[kind][1]
        too_many = any(connects[name] + cost > CONNECTS + at_s * CONNECTS_PER_S for name in hit)
        if (cost and too_many) or (kind in HOST and at_s > seconds / 3):
            continue
        for name in hit:
            connects[name] += cost
        whose = "" if kind in HOST or "database" in kind or kind == "kill monitor" else provider
        found.append(Fault(round(at_s, 3), kind, whose, tuple(facts.items())))
    return found


def _seconds(least: float, most: float) -> Callable[[random.Random], dict[str, Any]]:
    return lambda draw: {"s": round(least + (most - least) * draw.random(), 2)}


FACTS: Final[dict[str, Callable[[random.Random], dict[str, Any]]]] = {
    "kill everything": lambda draw: {"postgres": draw.random() < 0.5},
    "kill database": lambda draw: {"whole": draw.random() < 0.5},
    "stop feed": _seconds(0.5, 3.0),
    "stop archive": _seconds(1.0, 5.0),
    "stop load": _seconds(1.0, 10.0),
    "stop database": _seconds(1.0, 8.0),
    "slow fsync": lambda draw: {"s": round(1 + 4 * draw.random(), 2), "delay_us": draw.randrange(50_000, 1_000_000)},
    "venue close": lambda draw: {"code": draw.choice((1000, 1001, 1006, 1011))},
    "venue refuse": lambda draw: {"status": 503, "s": round(1 + draw.random(), 2)},
    "venue mute": _seconds(1.0, 4.0),
    "venue malformed": lambda draw: {"variant": draw.choice(_WHOLE), "n": draw.randrange(1, 6)},
    "venue fragment": lambda draw: {"n": draw.randrange(1, 6), "parts": draw.randrange(2, 5)},
    "venue burst": lambda draw: {"x": 2, "s": round(1 + draw.random(), 2)},
}
