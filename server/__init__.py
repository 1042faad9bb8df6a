"""The API of a state folder over HTTP, in the shape of Kubernetes', on this machine's loopback.

A request is answered from the same read models, tables and transactions as a command: what is
refused there is refused here, in the same words, as a ``Status``. Nothing here decides what work
is done, runs a job or speaks to another machine. Watches are the one place of Loopscope that uses
``async``: a watcher is a bounded queue, not a thread. Statements of a database run in threads.
"""
