"""Dialects: transactions, failures and the statements that differ between kinds of databases.

Everything that only SQLite knows lies here; the rest of the room speaks Core, which other databases
take as well. Nothing here knows what the tables mean.
"""
