"""Starts, watches, restarts and stops the processes of a host or of one provider; it never touches data.

Input: a Config. Output: running children, and in the end an exit code. Invariants: one owner per provider of a data
directory; shared memory is created and unlinked here alone; no data process is ever given up, except for exit codes
2 and 3. May import every room but cli; the simulated exchanges are started by name.
"""
