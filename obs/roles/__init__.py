"""One composition root for each kind of process: feed, poll, archive, load, monitor, keeper.

Input: a ProcessSpec. A role joins rooms that do not know each other, decides what to do about their errors, and stamps
its heartbeat from its own loop. It returns an exit code; only obs.supervisor.child exits. Roles may import every room
but supervisor, cli and sim.
"""
