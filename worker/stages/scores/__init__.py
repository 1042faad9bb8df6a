"""Stage *scores*: one outcome of one set of texts, measured once for all who ask for it."""
