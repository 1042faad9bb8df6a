"""One spec run twice: where the two part, stage for stage, and whether the effect is the same."""
