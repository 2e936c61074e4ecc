"""WHICH records go on: the state of each slot, the 2 Hz grid, tape mode, and the guards that flag and never drop.

Input: INPUT rows in order of arrival. Output: TICK rows. Invariants: every folded input is counted in exactly one
record; records of one slot are in time order. Pure: time comes as an argument. May import obs.record and numpy.
"""

from obs.sample.completeness import Completeness, Missed
from obs.sample.grid import boundary_after, interval_ns
from obs.sample.slots import Slots

__all__ = ["Completeness", "Missed", "Slots", "boundary_after", "interval_ns"]
