"""A language model as numerics sees it: batches, streams, residuals at a hook."""
