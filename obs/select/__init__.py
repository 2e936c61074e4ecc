"""WHO deserves one of the slots: triggers score the whole universe, slots go to the best, all others are written down.

Input: columns over the day's universe ((n,), one element per symbol, in its order) and the time. Output: scores in 0..1, which rows
take and leave slots, and the rows that got none with the reason. Invariants: never more rows than the capacity, a pinned row
is never replaced, and every row with a score is either in a slot or in the overflow. Pure: no clock, no I/O, no state of its
own. May import obs.record and numpy.
"""

from obs.select.overflow import overflow
from obs.select.slots import SlotOptions, decide
from obs.select.triggers import Observation, TriggerOptions, TriggerState, observe, scores

__all__ = ["Observation", "SlotOptions", "TriggerOptions", "TriggerState", "decide", "observe", "overflow", "scores"]
