"""Dialects: transactions, failures and the statements that differ between kinds of databases.

What only one kind knows lies here, in a package of its own; the rest of the room speaks Core, which
other databases take as well. Nothing here knows what the tables mean.
"""
