"""Reading of pickled weights: in a child process that can do nothing else, and only if asked for.

The parent hands over an open file and reads tensors from a pipe; it never unpickles. What the
child gives up before it opens the pickle stands in ``protections``.
"""
