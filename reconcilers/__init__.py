"""What to do next, decided without doing it: ``plan(snapshot) -> Plan``, one module a kind."""
