"""PostgreSQL: a schema of a database on a server, which several machines may reach."""
