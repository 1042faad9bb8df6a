"""Durable state: objects, change log, events, jobs and artifacts. The only room with SQL.

This file imports nothing so that pure code can read the frozen records without SQLAlchemy.
"""
