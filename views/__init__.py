"""Read models of a state folder: an experiment, its progress, the queue, several verdicts.

A read model reads the database and the artifacts in one look and comes back as frozen, typed
objects, which a command, the page and a notebook show each in its own way. What they share stands
here too: numbers as words, how far a stage is, an object as a document. Where a status is older
than the database, the reconcilers are asked for its words. Nothing here writes, prints, draws,
loads a model, imports torch or reads a clock. What only a controller can foresee, which job is
next and what an object wants, it puts into these types itself.
"""
