"""An open connection to the database: what a caller holds for one transaction and hands on."""

from sqlalchemy import Connection

__all__ = ["Connection"]
