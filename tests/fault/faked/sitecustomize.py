"""Imported by every Python that fake_clock.py starts, before anything else: mends time.sleep under libfaketime.

Python sleeps until an absolute monotonic time (clock_nanosleep), which libfaketime 0.9.10 shifts by the offset of the wall clock, so
that it fails or lasts for hours. select() takes a span of time, which nobody fakes.
"""

import select
import time


def sleep(seconds):  # type: ignore[no-untyped-def]
    select.select([], [], [], seconds)


time.sleep = sleep
