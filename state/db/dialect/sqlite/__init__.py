"""SQLite: one file with its write-ahead log, on a local disk."""
