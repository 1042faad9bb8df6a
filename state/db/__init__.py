"""The database: tables, migrations and every statement about them, in SQLAlchemy Core.

A function takes an open connection and the time; transactions are the caller's. Nothing here knows
where artifacts lie.
"""
