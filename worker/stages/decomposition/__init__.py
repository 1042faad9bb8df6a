"""Stage *decomposition*: a capture encoded with one dictionary. No prompt chooses anything here."""
