"""Stage *drift*: anchors over ever longer filler, and samples at several temperatures."""
