"""Apply, from files to stored objects: read, merge, one owner a field, admit, store all or nothing.

Needs no running controller, and knows nothing of plans, jobs or reconciles. What is slow (files,
headers, hashes) is read before the transaction, which then only compares and writes.
"""
