"""Writing a spec: a first file, the fields, and what models and dictionaries can be named in it.

Nothing here changes a state folder. What needs torch runs as a process of its own.
"""
