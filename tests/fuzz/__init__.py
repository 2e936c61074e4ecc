"""Fuzzing: arbitrary and hurt bytes into everything that reads bytes that we did not make just now. See README.md."""
