"""What SQLAlchemy Core leaves to each kind of database: transactions, failures, a few statements.

Everything that only SQLite knows lies here; the rest of the room speaks Core, which other databases
take as well. Nothing here knows what the tables mean.
"""
