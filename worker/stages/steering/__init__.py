"""Stage *steering*: text under each arm, scored, and the verdict. Directions are only read here."""
