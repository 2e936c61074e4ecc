"""HOW MUCH the machine can bear: what is measured of it, and the mitigation level that follows.

Input: CPU, memory, disk write latency, queue delay. Output: a level 0 to 2, and what caused it. Invariants: a level rises only
on what has held for five minutes on end and falls by one only after ten calm minutes; time without measurements proves
neither. May import obs.record, numpy and psutil (measure alone).
"""

from obs.pressure.measure import Gauge
from obs.pressure.mitigation import Measured, Pressure, causes, step

__all__ = ["Gauge", "Measured", "Pressure", "causes", "step"]
