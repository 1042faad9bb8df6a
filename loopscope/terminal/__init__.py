"""Output to a terminal while a command works or waits, and the end of a command from there.

A display reads views and prints; it decides nothing and writes to no state folder. A reader that
went away, Ctrl-C and SIGTERM each end a command with one last line and their own exit status.
"""
