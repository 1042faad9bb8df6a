"""What should exist: the five kinds, their loading from YAML, canonical form and digests."""
