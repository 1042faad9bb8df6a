"""Stage *capture*: residual vectors of two prompt sets. The model runs here and writes no text."""
