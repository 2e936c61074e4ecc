"""The `obs` command: what a person or a script asks of the archive, the database and the host.

Input: the command line, the environment, the configuration. Output: text for a terminal, or JSON with --json; an exit code: 0 good,
1 found something wrong, 2 usage or configuration, 4 could not check. main.py reads the words, one module per command does
the work, archive.py finds files, terminal.py draws. Nothing here writes to an archive.
May import every row but roles, supervisor and sim.
"""
