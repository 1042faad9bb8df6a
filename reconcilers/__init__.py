"""Decisions about what to do next, and no actions: ``plan(snapshot) -> Plan``, a module a kind."""
