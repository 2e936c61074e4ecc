"""The one memory fence. Nothing else in obs may rely on the order in which another process sees two stores.

What is needed: (producer) all stores before `fence()` are seen by every other core before any store after it; (consumer)
all loads before `fence()` are done before any load after it.

x86-64 gives both by itself: stores are not reordered with stores, loads not with loads (Intel SDM vol. 3A, 9.2.2, total
store order; only a load may pass an earlier store, which no protocol here depends on). A call of a Python function is
opaque to the compiler that built the interpreter, so it reorders nothing across it either. A copy of rows is no
exception: string instructions keep their order with the stores around them (9.2.4), and C libraries end a copy by
non-temporal stores with a fence of their own. `fence` does nothing there.

64-bit ARM gives neither. There `fence` takes and releases a lock twice. Argument, by the Arm Architecture Reference
Manual (B2.3, "Barrier-ordered-before"): release() is a store with release semantics (STLXR or CASL, glibc's sem_post:
compare-and-exchange, release), so R1: every access before it in program order is observed before it. acquire() is a
load with acquire semantics (LDAXR or CASA, sem_trywait: compare-and-exchange, acquire), so R2: every access after it in
program order is observed after it. The architecture also orders a store-release before a load-acquire that follows it in
program order (RCsc: "a Release L appears in program order before an Acquire A" => L is ordered before A), R3. With

    accesses before;  acquire1; release1; acquire2; release2;  accesses after

R1 puts `accesses before` before release1, R3 puts release1 before acquire2, R2 puts acquire2 before `accesses after`.
One pair is not enough: release1 does not hold back later accesses and acquire1 does not hold back earlier ones.
Interpreters whose lock is a futex word (CPython 3.13+) use the same or stronger (sequentially consistent) operations.

Why not libatomic's atomic_thread_fence: it is not on every machine. Why not membarrier(2): sandboxes filter it. Why not
own machine code in an executable mapping: MemoryDenyWriteExecute forbids it.
"""

from __future__ import annotations

import platform
import threading
from collections.abc import Callable
from typing import Final

_LOCK: Final = threading.Lock()


def _fence_by_lock() -> None:
    _LOCK.acquire()
    _LOCK.release()
    _LOCK.acquire()
    _LOCK.release()


def _fence_by_architecture() -> None:
    """Total store order: nothing to do."""


def fence_for(machine: str) -> Callable[[], None]:
    """Return the fence of a machine as platform.machine() names it; every unknown machine gets the lock."""
    return _fence_by_architecture if machine.lower() in ("x86_64", "amd64") else _fence_by_lock


# Safety: the lock is private to a process and a thread of it that waits here waits for another thread's four calls.
fence: Final = fence_for(platform.machine())
