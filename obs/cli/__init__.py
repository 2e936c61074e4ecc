"""The `obs` command: what a person or a script asks of the archive, the database and the host.

Input: the command line, the environment, the configuration. Output: text for a terminal, or JSON with --json; an exit code: 0 good,
1 found something wrong, 2 usage or configuration, 4 could not check (main.py has them all). Nothing here writes to an archive.
    main       the words, the exit codes; one module per command does the work
    archive    which files                      database, since  what a server knows
    glance, columns, frame  what is shown of a status, a recorded line, a look: pure
    terminal   tables and colours               progress, screen, looking  for those who look: rich is loaded there alone
May import every row but roles, supervisor and sim.
"""
