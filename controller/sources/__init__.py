"""Sources of change from outside: watched folders, inputs of specs, writes of other processes.

Threads watch, the loop stores what they found. Slow things (files, the hub) are read here before a
transaction begins, and nothing is deleted after one look. How it is stored is decided elsewhere,
and no job is touched.
"""
