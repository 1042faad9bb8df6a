"""Stage *geometry*: two decoders compared. No prompt and no model enters it."""
