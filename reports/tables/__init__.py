"""Objects as text in columns: what ``get`` and ``describe`` print."""
