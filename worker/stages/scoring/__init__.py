"""Stage *scoring*: all outcomes of a steering's texts side by side, and the verdict on one."""
